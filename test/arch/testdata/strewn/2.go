package strewn

func (wide) M2() {}

func (narrow) M2() {}

func f2() {}
