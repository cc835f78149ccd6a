// Package strewn has a type with methods in four files, and one with methods in three.
package strewn

type wide struct{}

type narrow struct{}

func (wide) M1() {}

func (narrow) M1() {}

func f1() {}
