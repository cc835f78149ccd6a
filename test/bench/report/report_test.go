package report

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func seconds(values ...float64) Cell { return Cell{Unit: Seconds, Values: values} }

// sample is a report of all that is drawn.
func sample() *Report {
	got := 2.5
	return &Report{
		Schema: Schema, Date: time.Date(2026, 5, 5, 0, 0, 0, 0, time.UTC),
		Machine: Machine{CPU: "a | b", Cores: 2},
		Tools:   []Tool{{Name: "fio", Missing: "apt-get install fio"}},
		Tables: []Table{
			{
				Section: warmSection, User: "root", Title: "Warm", Base: FirstColumn,
				Columns: []string{"ext4", "restic", "pfmount"},
				Rows: []Row{
					{"find", []Cell{seconds(0.1, 0.3, 0.2), {Why: "did not mount"}, seconds(0.5)}},
					{"tar", []Cell{seconds(1), seconds(2), seconds(0.5)}},
				},
				Targets: []Target{{Text: "find to ext4", Got: &got, Limit: 1.5, Unit: Times},
					{Text: "not done", Limit: 1, Unit: Times}},
			},
			{
				Section: distanceSection, Order: 1, Title: "Far", Base: FirstRow,
				Columns: []string{"0 ms a request", "50 ms a request"},
				Rows: []Row{{"pfmount", []Cell{seconds(1), seconds(2)}},
					{"oras", []Cell{seconds(2), seconds(2)}}, {"pf", []Cell{{Why: "left out"}, seconds(80)}}},
			},
			{
				Section: sizeSection, Order: 2, Title: "Size",
				Columns: []string{"1000 files", "10000 files", "5 pages"},
				Rows: []Row{{"mount", []Cell{seconds(1), seconds(2), seconds(3)}},
					{"memory", []Cell{{Unit: Bytes, Values: []float64{1e6}},
						{Unit: Bytes, Values: []float64{2e6}}, {}}}},
			},
		},
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSave writes results, and draws the same from what was written.
func TestSave(t *testing.T) {
	dir := t.TempDir()
	if err := sample().Save(dir); err != nil {
		t.Fatal(err)
	}
	text := string(read(t, dir, textFile))
	for _, want := range []string{
		"| find | 200 ms (100–300 ms) | *did not mount* | 500 ms **2.50×** |",
		"| oras | 2.00 s **2.00×** | 2.00 s **1.00×** |",
		"| pf | *left out* | 80.0 s **40.0×** |",
		"| find to ext4 | root | ≤ 1.50× | 2.50× | **missed** |",
		"| not done | root | ≤ 1.00× | not measured | – |",
		"**not installed**: apt-get install fio",
		`a \| b, 2 cores`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", textFile, want, text)
		}
	}
	pictures := map[string][]byte{}
	for _, name := range []string{"warm.svg", "distance.svg", "size.svg"} {
		pictures[name] = read(t, dir, plotDir+"/"+name)
		if !bytes.Contains(pictures[name], []byte("</svg>")) || !strings.Contains(text, name) {
			t.Errorf("%s is not drawn, or not shown", name)
		}
	}
	again, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Render(dir); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, dir, textFile)); got != text {
		t.Errorf("drawn again: %s, want %s", got, text)
	}
	for name, want := range pictures {
		if !bytes.Equal(read(t, dir, plotDir+"/"+name), want) {
			t.Errorf("%s is drawn differently the second time", name)
		}
	}
}

// TestReplace puts new tables in the place of old ones, and drops all that another machine measured.
func TestReplace(t *testing.T) {
	r := sample()
	r.Replace(distanceSection, []Table{{Section: distanceSection, Order: 1, Title: "new"}})
	if len(r.Tables) != 3 || r.Tables[1].Title != "new" {
		t.Errorf("got %v", r.Tables)
	}
	r.On(r.Machine, nil)
	if len(r.Tables) != 3 {
		t.Errorf("the same machine left %d tables", len(r.Tables))
	}
	r.On(Machine{Cores: 4}, nil)
	if len(r.Tables) != 0 {
		t.Errorf("another machine left %d tables", len(r.Tables))
	}
}

func TestFormat(t *testing.T) {
	tests := []struct {
		value float64
		unit  Unit
		want  string
	}{
		{0.0000021, Seconds, "2.10 µs"}, {0.0471, Seconds, "47.1 ms"}, {3, Seconds, "3.00 s"},
		{127.4, Seconds, "127 s"},
		{1500, Bytes, "1.50 kB"}, {2.5e9, Bytes, "2.50 GB"}, {0.0152, Times, "0.015×"},
		{36.14, Times, "36.1×"}, {12, Count, "12"},
	}
	for _, tt := range tests {
		if got := Format(tt.value, tt.unit); got != tt.want {
			t.Errorf("Format(%v, %q): got %q, want %q", tt.value, tt.unit, got, tt.want)
		}
	}
}
