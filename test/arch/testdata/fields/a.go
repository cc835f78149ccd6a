// Package fields has structs with many fields: exported, of options, and others.
package fields

type Exported struct {
	F0, F1, F2, F3, F4, F5, F6, F7, F8, F9, F10 int
}

type mountOptions struct {
	F0, F1, F2, F3, F4, F5, F6, F7, F8, F9, F10 int
}

type Fine struct {
	F0, F1, F2, F3, F4, F5, F6, F7, F8, F9 int
}

type private struct {
	F0, F1, F2, F3, F4, F5, F6, F7, F8, F9, F10 int
}
