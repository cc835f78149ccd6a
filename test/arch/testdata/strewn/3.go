package strewn

func (wide) M3() {}

func (narrow) M3() {}

func f3() {}
