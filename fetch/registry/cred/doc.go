// Package cred finds the login of a registry: in the environment, in what docker login and podman
// login wrote, and from credential helpers. It promises that no error and no source that it names
// holds a secret, and that a helper ends with its caller. It does not know how a login is used, and
// asks no registry.
package cred
