package small

const limit = 1

func (thing) m() int { return limit }
