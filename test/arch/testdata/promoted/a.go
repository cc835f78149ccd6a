// Package promoted has a type with too many methods, of which most are promoted.
package promoted

type part struct{}

func (*part) M0()  {}
func (*part) M1()  {}
func (*part) M2()  {}
func (*part) M3()  {}
func (*part) M4()  {}
func (*part) M5()  {}
func (*part) M6()  {}
func (*part) M7()  {}
func (*part) M8()  {}
func (*part) M9()  {}
func (*part) M10() {}
func (*part) M11() {}
func (*part) M12() {}
func (*part) M13() {}
func (*part) M14() {}
func (*part) M15() {}
func (*part) M16() {}
func (*part) M17() {}
func (*part) M18() {}
func (*part) M19() {}

type whole struct{ part }

func (*whole) M20() {}
func (*whole) M21() {}
func (*whole) M22() {}
func (*whole) M23() {}
func (*whole) M24() {}
func (*whole) M25() {}
