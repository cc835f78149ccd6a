// Package faultreg is the fault registry: distribution's own handler behind a middleware that
// records every request and can stall, cut, flip, redirect, lie and answer by script. It promises
// that what no rule touches is a real registry's answer; it knows nothing of testing.T, so demo and
// benchmark programs use it too.
//
//	srv, err := faultreg.New(faultreg.Options{})       // in memory, http, 127.0.0.1:0
//	defer srv.Close()
//	err = srv.Push(ctx, img, "team/app", "v1")         // real uploads into distribution; checks digests
//	srv.Serve(img, "team/big", "v1")                   // as it stands: lies, manifests over 4 MiB, no checks
//	srv.PutManifest("team/app", "bad", "text/html", []byte("<html>"))
//	ref := srv.Ref("team/app", "v1")                   // 127.0.0.1:PORT/team/app:v1
//
// A rule is a Match and a Fault. The first rule that matches and still has requests to spend takes
// the request, so scripts are rules in a row:
//
//	d := img.WireOf("world/fs/bin/tool")
//	srv.On(faultreg.Match{Ref: d, Count: 1}, faultreg.Cut{Percent: 30}.Fault())
//	srv.On(faultreg.Match{Ref: d, Count: 1}, faultreg.Cut{Percent: 60, RST: true}.Fault())
//	srv.On(faultreg.Match{Kind: faultreg.Blob, From: 5, Count: 2}, faultreg.Answer(429, "", "Retry-After", "2"))
//	rule := srv.On(faultreg.Match{Ref: "v1"}, faultreg.Chain(faultreg.Delay(time.Second), faultreg.With("Docker-Content-Digest", "wrong")))
//	rule.Hits(); rule.Off()
//
//	hold := faultreg.NewHold()
//	srv.On(faultreg.Match{Ref: d}, hold.Fault())       // or hold.After(1000): that many bytes first
//	hold.Waiting(); hold.Release()
//
//	other, err := faultreg.New(faultreg.Options{Addr: "127.0.0.2:0", Backend: srv.Backend()})
//	srv.On(faultreg.Match{Kind: faultreg.Blob}, faultreg.Redirect(other.URL(), "X-Signature=secret"))
//
// Over TLS, and as a mirror:
//
//	ca, err := faultreg.NewAuthority()
//	conf, err := ca.Server("registry.test", "192.0.2.1") // ca.Demand(conf): with client certificates only
//	srv, err := faultreg.New(faultreg.Options{TLS: conf})
//	mirror, err := faultreg.New(faultreg.Options{Mirror: srv.URL()})
//
// Logins stand before the registry, as distribution checks them; a token server is a Server too:
//
//	tokens, err := faultreg.NewTokens()
//	realm, err := faultreg.New(faultreg.Options{Backend: tokens})
//	wrap, err := tokens.Guard(realm.URL()+"/v2/token", t.TempDir())   // or faultreg.Passwords(users, t.TempDir())
//	srv, err := faultreg.New(faultreg.Options{Wrap: wrap})
//	tokens.Issued(); tokens.Revoke()
//
// Faults are plain functions, func(w, r, next), so a test can write its own. What was asked for:
//
//	srv.Log()                       // every Exchange: method, path, kind, ref, headers both ways, status, bytes, times
//	srv.Count(faultreg.Match{Kind: faultreg.Blob, Method: "GET"}); srv.Gets(faultreg.Blob) // by digest
//	srv.Peak(); srv.InFlight(); srv.Reset()
//	srv.Stop(); srv.Start()         // gone, and back on the same port
package faultreg
