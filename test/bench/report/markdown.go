package report

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// markdown is the page of all tables; drawn are the pictures, by file and title.
func (r *Report) markdown(drawn []picture) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Measurements\n\nWritten by `make bench`, drawn from [%s](%s); `-render` draws it again. Do not edit.\n", dataFile, dataFile)
	r.machine(&b)
	r.targets(&b)
	for _, p := range drawn {
		fmt.Fprintf(&b, "\n![%s](%s/%s)\n", p.title, plotDir, p.file)
	}
	fmt.Fprintf(&b, "\nCells are the median of the runs, with least and most of them in brackets. A ratio is to the cell that its table "+
		"says, measured in the same run, in turns.\n")
	for _, t := range r.Tables {
		t.write(&b)
	}
	return b.Bytes()
}

func (r *Report) machine(b *bytes.Buffer) {
	m := r.Machine
	fmt.Fprintf(b, "\n| | |\n| --- | --- |\n")
	line := func(name, value string) { fmt.Fprintf(b, "| %s | %s |\n", name, escape(value)) }
	line("date", r.Date.UTC().Format(time.DateOnly))
	line("processor", fmt.Sprintf("%s, %d cores", m.CPU, m.Cores))
	line("memory", Format(float64(m.Memory), Bytes))
	line("kernel", "Linux "+m.Kernel)
	line("disk", m.Disk)
	line("registry", "in the bench's process, on the same cores, built with "+m.Go)
	for _, t := range r.Tools {
		if t.Missing != "" {
			line(t.Name, "**not installed**: "+t.Missing)
			continue
		}
		line(t.Name, t.Version)
	}
}

// targets writes the aims of all sections in one table.
func (r *Report) targets(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n## Targets\n\n| | as | aim | measured | |\n| --- | --- | --- | --- | --- |\n")
	for _, t := range r.Tables {
		for _, aim := range t.Targets {
			bound, got, verdict := "≤ ", "not measured", "–"
			if aim.AtLeast {
				bound = "≥ "
			}
			if aim.Got != nil {
				got, verdict = Format(*aim.Got, aim.Unit), "**missed**"
				if aim.Met() {
					verdict = "met"
				}
			}
			quick := ""
			if t.Quick {
				quick = " (quick)"
			}
			fmt.Fprintf(b, "| %s | %s | %s%s | %s | %s%s |\n", escape(aim.Text), t.User, bound,
				Format(aim.Limit, aim.Unit), got, verdict, quick)
		}
	}
}

func (t *Table) write(b *bytes.Buffer) {
	quick := ""
	if t.Quick {
		quick = ", **a quick run: small sizes**"
	}
	fmt.Fprintf(b, "\n## %s (as %s)\n\nPart `%s`, %s, pfmount %s, %.0f s, load %s before and %s after%s.\n\n", t.Title, t.User, t.Section,
		t.Date.UTC().Format("2006-01-02 15:04 UTC"), t.Product, t.Took, t.Load[0], t.Load[1], quick)
	if len(t.Rows) > 0 {
		base := map[Base]string{FirstColumn: "ratios to " + first(t.Columns),
			FirstRow: "ratios to the first line"}[t.Base]
		fmt.Fprintf(b, "| %s | %s |\n|%s\n", base, escapeAll(t.Columns),
			strings.Repeat(" --- |", len(t.Columns)+1))
	}
	for i, row := range t.Rows {
		fmt.Fprintf(b, "| %s |", escape(row.Name))
		for j, c := range row.Cells {
			text, ratio := c.text(), ""
			switch {
			case t.Base == FirstColumn && j > 0:
				ratio = c.ratio(row.Cells[0])
			case t.Base == FirstRow && i > 0 && j < len(t.Rows[0].Cells):
				ratio = c.ratio(t.Rows[0].Cells[j])
			}
			if ratio != "" {
				text += " **" + ratio + "**"
			}
			fmt.Fprintf(b, " %s |", escape(text))
		}
		b.WriteByte('\n')
	}
	for _, note := range t.Notes {
		fmt.Fprintf(b, "\n%s\n", note)
	}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// escape keeps a text inside its cell of a table.
func escape(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}

func escapeAll(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = escape(s)
	}
	return strings.Join(out, " | ")
}

// Markdown is the page of all tables without pictures.
func (r *Report) Markdown() []byte { return r.markdown(nil) }
