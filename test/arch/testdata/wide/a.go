// Package wide has a line of 101 columns: its tab counts as four.
package wide

func f() {
	//ééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé
}
