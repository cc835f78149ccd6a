// Package methods has a type with one method too many, and one with as many as may be.
package methods

type Many struct{}

func (*Many) M0()  {}
func (*Many) M1()  {}
func (*Many) M2()  {}
func (*Many) M3()  {}
func (*Many) M4()  {}
func (*Many) M5()  {}
func (*Many) M6()  {}
func (*Many) M7()  {}
func (*Many) M8()  {}
func (*Many) M9()  {}
func (*Many) M10() {}
func (*Many) M11() {}
func (*Many) M12() {}
func (*Many) M13() {}
func (*Many) M14() {}
func (*Many) M15() {}
func (*Many) M16() {}
func (*Many) M17() {}
func (*Many) M18() {}
func (*Many) M19() {}
func (*Many) M20() {}
func (*Many) M21() {}
func (*Many) M22() {}
func (*Many) M23() {}
func (*Many) M24() {}
func (*Many) M25() {}

type few struct{}

func (*few) M0()  {}
func (*few) M1()  {}
func (*few) M2()  {}
func (*few) M3()  {}
func (*few) M4()  {}
func (*few) M5()  {}
func (*few) M6()  {}
func (*few) M7()  {}
func (*few) M8()  {}
func (*few) M9()  {}
func (*few) M10() {}
func (*few) M11() {}
func (*few) M12() {}
func (*few) M13() {}
func (*few) M14() {}
func (*few) M15() {}
func (*few) M16() {}
func (*few) M17() {}
func (*few) M18() {}
func (*few) M19() {}
func (*few) M20() {}
func (*few) M21() {}
func (*few) M22() {}
func (*few) M23() {}
func (*few) M24() {}
