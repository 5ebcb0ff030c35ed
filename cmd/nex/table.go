package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// newTable is the one look of tables: rounded, headers as written.
func newTable(title string) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.Style().Format.Header = text.FormatDefault
	t.Style().Title.Align = text.AlignLeft
	t.SetTitle(escape(title))
	return safeTable{t}
}

// safeTable is a table whose rows show what nodes say of themselves without
// giving it power over the terminal.
type safeTable struct{ table.Writer }

// AppendRow adds a row of values, whose lines stay lines.
func (t safeTable) AppendRow(row table.Row, config ...table.RowConfig) {
	safe := make(table.Row, len(row))
	for i, v := range row {
		safe[i] = escapeLines(fmt.Sprint(v))
	}
	t.Writer.AppendRow(safe, config...)
}

// escapeLines is [escape] for a text of several lines.
func escapeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = escape(lines[i])
	}
	return strings.Join(lines, "\n")
}
