#!/bin/sh
# Brings module.mod and module.sum of the named components (all by default) up
# to date after a version in them was edited: "go mod tidy" in a copy. The files
# are not called go.mod because Go does not embed a directory that has one.
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- */
for dir; do
	dir=${dir%/}
	work=$(mktemp -d)
	cp "$dir/module.mod" "$work/go.mod"
	[ ! -f "$dir/module.sum" ] || cp "$dir/module.sum" "$work/go.sum"
	for f in "$dir"/*.go "$dir"/*.go.in; do
		case $f in
		*\** | *_test.go) ;;
		*) cp "$f" "$work/$(basename "${f%.in}")" ;;
		esac
	done
	(cd "$work" && go mod tidy)
	cp "$work/go.mod" "$dir/module.mod"
	[ ! -f "$work/go.sum" ] || cp "$work/go.sum" "$dir/module.sum"
	rm -rf "$work"
done
