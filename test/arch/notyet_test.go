package arch

// notYet lists what breaks a rule of TestShape today. It only shrinks.
var notYet = []violation{
	{"cmd/pfmount", lines},
	{"cmd/pfmount", columns},
	{"fetch", lines},
	{"fetch", columns},
	{"fetch.endpoint", methodFiles},
	{"fetch.Image", methods},
	{"fetch.Image", fields},
	{"fetch.Image", methodFiles},
	{"fetch/head.go", methodFile},
	{"fetch/repeat.go", methodFile},
	{"fetch/stall.go", methodFile},
	{"fetch/pfimg.Index", methods},
	{"fetch/pfimg.builder", methodFiles},
}
