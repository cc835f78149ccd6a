package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is a drawn file.
type picture struct{ file, title string }

// Sections whose tables are drawn, as the bench calls them.
const (
	warmSection     = "warm"
	distanceSection = "distance"
	sizeSection     = "size"
)

// draw writes the pictures whose sections were measured; on white, so that they are readable on
// light and dark pages.
func (r *Report) draw(dir string) ([]picture, error) {
	var drawn []picture
	for _, p := range []struct {
		picture
		section string
		panels  func(*Table) []*plot.Plot
	}{
		{picture{"warm.svg", "Warm work, as multiples of the time on ext4"}, warmSection, warmPanels},
		{picture{"distance.svg", "A cold session read whole, by the registry's distance"},
			distanceSection, distancePanels},
		{picture{"size.svg", "Time and memory as the image grows"}, sizeSection, sizePanels},
	} {
		i := slices.IndexFunc(r.Tables,
			func(t Table) bool { return t.Section == p.section && len(t.Rows) > 0 })
		if i < 0 {
			continue
		}
		panels := p.panels(&r.Tables[i])
		panels = slices.DeleteFunc(panels, func(p *plot.Plot) bool { return p == nil })
		if len(panels) == 0 {
			continue
		}
		if err := save(filepath.Join(dir, p.file), panels); err != nil {
			return nil, err
		}
		drawn = append(drawn, p.picture)
	}
	return drawn, nil
}

// save writes plots side by side into one file.
func save(file string, panels []*plot.Plot) error {
	const width, height = 17 * vg.Centimeter, 9 * vg.Centimeter
	c := vgsvg.New(width, height)
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Centimeter / 2,
		PadTop: vg.Millimeter * 3, PadBottom: vg.Millimeter * 3, PadLeft: vg.Millimeter * 3, PadRight: vg.Millimeter * 3}
	whole := draw.New(c)
	whole.FillPolygon(color.White, []vg.Point{{}, {X: width}, {X: width, Y: height}, {Y: height}})
	for i, p := range panels {
		p.Draw(tiles.At(whole, i, 0))
	}
	var out bytes.Buffer
	if _, err := c.WriteTo(&out); err != nil {
		return err
	}
	// Where that font is not installed, another without serifs.
	text := bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	return os.WriteFile(file, text, 0o644)
}

// palette is that of Okabe and Ito, which the colour-blind tell apart.
var palette = []color.Color{
	color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255}, color.RGBA{0, 158, 115, 255},
	color.RGBA{204, 121, 167, 255}, color.RGBA{230, 159, 0, 255}, color.RGBA{86, 180, 233, 255},
}

var shapes = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{},
	draw.RingGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}}

func newPlot(title string) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle.Font.Size = vg.Points(11)
	p.Title.Padding = vg.Points(6)
	p.Legend.TextStyle.Font.Size = vg.Points(10)
	p.Legend.Padding = vg.Points(2)
	p.Legend.Top = true
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	p.Add(grid)
	return p
}

// logarithmic makes an axis one whose marks are powers of ten and their double and fivefold.
func logarithmic(a *plot.Axis, unit Unit) {
	a.Scale = plot.LogScale{}
	a.Tick.Marker = plot.TickerFunc(func(least, most float64) (ticks []plot.Tick) {
		for ten := math.Pow(10, math.Floor(math.Log10(least))); ten <= most; ten *= 10 {
			for _, n := range []float64{1, 2, 5} {
				if v := n * ten; v >= least*0.999 && v <= most*1.001 {
					ticks = append(ticks, plot.Tick{Value: v, Label: short(v, unit)})
				}
			}
		}
		return ticks
	})
}

// short is Format without digits that say nothing.
func short(v float64, u Unit) string {
	if u == Count && v >= 1000 {
		return fmt.Sprintf("%gk", v/1000)
	}
	if u == Times {
		return fmt.Sprintf("%g×", math.Round(v*1000)/1000)
	}
	number, unit, _ := strings.Cut(Format(v, u), " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return strings.TrimSpace(number + " " + unit)
}

// series adds points of one name, joined by a line or not; nothing without points.
func series(p *plot.Plot, n int, name string, xys plotter.XYs, joined bool) {
	if len(xys) == 0 {
		return
	}
	line, points, err := plotter.NewLinePoints(xys)
	if err != nil {
		return // only for what is no number, which was left out before
	}
	line.Color, line.Width = palette[n%len(palette)], vg.Points(1.5)
	points.Color, points.Shape, points.Radius = palette[n%len(palette)], shapes[n%len(shapes)], vg.Points(3.5)
	if joined {
		p.Add(line)
	}
	p.Add(points)
	p.Legend.Add(name, points)
}

// point tells whether a value can stand on a logarithmic axis.
func point(v float64) bool { return v > 0 && !math.IsInf(v, 0) }

// warmPanels: a line a work, a mark a tool, at its ratio to the first column.
func warmPanels(t *Table) []*plot.Plot {
	p := newPlot("Warm: time as a multiple of " + first(t.Columns) + "'s (less is better)")
	names := make([]string, len(t.Rows))
	for j := len(t.Columns) - 1; j > 0; j-- { // pfmount, the last, has the first colour
		var xys plotter.XYs
		for i, row := range t.Rows {
			if q := row.Cells[j].Median() / row.Cells[0].Median(); point(q) {
				xys = append(xys, plotter.XY{X: q, Y: float64(len(t.Rows) - 1 - i)})
			}
		}
		series(p, len(t.Columns)-1-j, t.Columns[j], xys, false)
	}
	if p.X.Max <= 0 || math.IsInf(p.X.Min, 0) {
		return nil
	}
	for i, row := range t.Rows {
		names[len(t.Rows)-1-i] = row.Name
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	p.X.Min, p.X.Max = min(p.X.Min, 1)*0.9, p.X.Max*4 // room for the legend
	logarithmic(&p.X, Times)
	return []*plot.Plot{p}
}

// distancePanels: a line a way, over milliseconds a request.
func distancePanels(t *Table) []*plot.Plot {
	p := newPlot("A cold session of small files, read whole: seconds by delay of a request")
	var ticks []plot.Tick
	for _, column := range t.Columns {
		var ms float64
		if _, err := fmt.Sscanf(column, "%g ms", &ms); err == nil {
			ticks = append(ticks, plot.Tick{Value: ms, Label: fmt.Sprint(ms)})
		}
	}
	for i, row := range t.Rows {
		var xys plotter.XYs
		for j, c := range row.Cells {
			var ms float64
			if _, err := fmt.Sscanf(t.Columns[j], "%g ms", &ms); err == nil && point(c.Median()) {
				xys = append(xys, plotter.XY{X: ms, Y: c.Median()})
			}
		}
		series(p, i, row.Name, xys, true)
	}
	if p.Y.Max <= 0 || math.IsInf(p.Y.Min, 0) {
		return nil
	}
	p.Legend.Left = true
	p.X.Label.Text = "ms a request"
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.Y.Max *= 8
	logarithmic(&p.Y, Seconds)
	return []*plot.Plot{p}
}

// sizePanels: times and memory over the number of files, which the columns begin with.
func sizePanels(t *Table) []*plot.Plot {
	times, memory := newPlot("Time by files"), newPlot("Memory by files")
	var timed, sized int
	for _, row := range t.Rows {
		var xys plotter.XYs
		unit := Seconds
		for j, c := range row.Cells {
			var files float64
			var of string
			if n, _ := fmt.Sscanf(strings.ReplaceAll(t.Columns[j], ",", ""), "%g %s", &files,
				&of); n == 2 && of == "files" && point(c.Median()) {
				xys, unit = append(xys, plotter.XY{X: files, Y: c.Median()}), c.Unit
			}
		}
		switch unit {
		case Seconds:
			series(times, timed, row.Name, xys, true)
			timed++
		case Bytes:
			series(memory, sized, strings.TrimPrefix(row.Name, "memory, "), xys, true)
			sized++
		}
	}
	var panels []*plot.Plot
	for p, unit := range map[*plot.Plot]Unit{times: Seconds, memory: Bytes} {
		if p.Y.Max <= 0 || math.IsInf(p.Y.Min, 0) || p.X.Min == p.X.Max {
			continue
		}
		p.Legend.Left = true
		p.X.Label.Text = "files"
		p.Y.Max *= 10
		logarithmic(&p.X, Count)
		logarithmic(&p.Y, unit)
		panels = append(panels, p)
	}
	slices.SortFunc(panels, func(a, b *plot.Plot) int { return strings.Compare(b.Title.Text, a.Title.Text) })
	return panels
}
