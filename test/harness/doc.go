// Package harness runs the built binary against real registries and real mounts. It promises that what
// a test starts ends with the test: mounts, processes, sockets, temporary files; whatever is left over
// fails the test. It never imports the product.
//
//	func TestMain(m *testing.M) { os.Exit(harness.Main(m)) } // once in each package
//
//	func TestReads(t *testing.T) {
//		t.Parallel()                                    // each Env has its own binary, cache, registry
//		env := harness.New(t, "")                       // or an ordinary user: harness.User; see Each
//		ref := env.Push(harness.Fixture(t, "basic"))    // into env.Registry(), a faultreg.Server
//		m := env.Mount(ref, "--cache-size", "1GiB")     // returns when the command returned
//		m.Compare("world/fs", harness.Want(t, "basic")) // names, kinds, modes, links, sizes, content
//		env.Registry().Reset()
//		data := m.Read("world/fs/README.md")            // fails the test; ReadErr gives the error
//		m.Unmount()                                     // else at the end of the test
//
//		r := env.Run("verify", "--json", ref)           // any command; Result has Code, Stdout, Stderr, Took
//		r.Want(t, 0)
//		env.Run("verify", bad).Want(t, 4, "signature")  // exit code, and what stderr must hold
//		env.Sh(`cp -a "$1"/. "$2"`, m.Dir, out).Want(t, 0)
//		p := env.Start("warm", ref); p.Signal(syscall.SIGINT); p.Wait(time.Minute)
//	}
//
// An Env that is an ordinary user runs commands as that user, who alone may read such a mount; Go code
// reads it inside env.Do, or through the methods of Mount, which do so.
//
// env.Set("NAME", "value") sets a variable for its commands. env.Prefix is a command line before each
// command: harness.MemoryLimit(t, n), harness.Network(t).Prefix(), []string{"prlimit", "--nofile=256"}.
// env.Crash() says that the test kills daemons, so sockets and partial files may stay.
//
// For processes and mounts: Pids, RSS, Peak, FDs, State, MountLines, DropCaches, Eventually. For disks:
// Tmpfs, LoopExt4; Ext4 with power cuts, Btrfs with a quota.
//
// PFMOUNT_BIN names a binary to test in place of a fresh build; PFMOUNT_RACE=1 builds with the race
// detector, and a race that any process reports fails its test.
package harness
