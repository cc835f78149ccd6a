// Package fuse has a type that serves FUSE, whose operations do not count, and one that has too
// many methods besides.
package fuse

import "github.com/hanwen/go-fuse/v2/fuse"

type fine struct{ fuse.RawFileSystem }

func (fine) String() string { return "" }

type many struct{ fuse.RawFileSystem }

func (*many) M0()  {}
func (*many) M1()  {}
func (*many) M2()  {}
func (*many) M3()  {}
func (*many) M4()  {}
func (*many) M5()  {}
func (*many) M6()  {}
func (*many) M7()  {}
func (*many) M8()  {}
func (*many) M9()  {}
func (*many) M10() {}
func (*many) M11() {}
func (*many) M12() {}
func (*many) M13() {}
func (*many) M14() {}
func (*many) M15() {}
func (*many) M16() {}
func (*many) M17() {}
func (*many) M18() {}
func (*many) M19() {}
func (*many) M20() {}
func (*many) M21() {}
func (*many) M22() {}
func (*many) M23() {}
func (*many) M24() {}
func (*many) M25() {}
