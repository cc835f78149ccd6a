package cache

func helpOpen(a []string) error  { return nil }
func helpHold(a []string) error  { return nil }
func helpChurn(a []string) error { return nil }
func helpMany(a []string) error  { return nil }
func helpLimit(a []string) error { return nil }
