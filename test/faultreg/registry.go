package faultreg

import (
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // driver by name
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"   // driver by name
	"github.com/sirupsen/logrus"
)

// silence stops distribution's own logging, which goes through logrus' global logger.
var silence = sync.OnceFunc(func() { logrus.SetOutput(io.Discard) })

// newRegistry is distribution's handler over memory, or over dir; with mirror it fetches from there
// what it lacks.
func newRegistry(dir, mirror string) (http.Handler, func() error, error) {
	silence()
	cfg := &configuration.Configuration{}
	cfg.Log.AccessLog.Disabled = true
	cfg.Log.Level = "panic"
	cfg.HTTP.Secret = "not a secret: uploads of one test"
	cfg.HTTP.RelativeURLs = true
	cfg.Catalog.MaxEntries = 1000
	cfg.Storage = configuration.Storage{
		"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		"delete":      configuration.Parameters{"enabled": true},
	}
	if dir == "" {
		cfg.Storage["inmemory"] = configuration.Parameters{}
	} else {
		cfg.Storage["filesystem"] = configuration.Parameters{"rootdirectory": dir}
	}
	cfg.Proxy.RemoteURL = mirror
	app := handlers.NewApp(context.Background(), cfg)
	return app, app.Shutdown, nil
}
