package small

func (thing) n() int { return helper() }

func helper() int { return 2 }
