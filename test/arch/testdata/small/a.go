// Package small has a type whose method stands alone in a small file.
package small

type thing struct{}
