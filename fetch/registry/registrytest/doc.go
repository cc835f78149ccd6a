// Package registrytest is a registry in memory for tests, as net/http/httptest is a server. A
// Server is read from and follows a script of faults; a Destination takes pushes; the rest makes
// images to put there. Only tests import it. It does not know the client that asks it.
package registrytest
