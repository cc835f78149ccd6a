package pfimg

import "github.com/pfmount/pfmount/fetch/safetext"

// shown bounds how much of foreign text an error shows, in bytes.
const shown = 300

// quote shows foreign bytes: escaped, and not too long.
func quote[T ~string | ~[]byte](s T) string { return safetext.Quote(s, shown) }
