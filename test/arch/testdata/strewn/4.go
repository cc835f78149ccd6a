package strewn

func (wide) M4() {}

func f4() {}
