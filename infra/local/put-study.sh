#!/usr/bin/env bash
# Copies studies/NAME.yaml to params.yaml, unless params.yaml is a study of another name than the ready-made
# ones, or has edits that are not committed (an unchanged ready-made study is not an edit).
set -euo pipefail
name=$1
wanted=studies/$name.yaml
if [ ! -f "$wanted" ]; then
  echo "error: there is no study '$name': wanted one of $(cd studies && ls ./*.yaml | sed 's|^\./||; s|\.yaml$||' | paste -sd' ')" >&2
  exit 2
fi
# the first line names the schema by a relative path, which differs by one folder
document() { sed '1s|=\.\./docs|=docs|' "$1"; }
is_here() { document "$1" | cmp -s - params.yaml; }
is_here "$wanted" && exit 0
if grep -qx "study: $name" params.yaml 2>/dev/null; then
  echo "params.yaml is already the study '$name', with edits; it stays as it is"
  exit 0
fi
if [ -f params.yaml ]; then
  own=$(sed -n 's/^study: *\([^ #]*\).*/\1/p' params.yaml)
  if [ -n "$own" ] && ! grep -qx "study: $own" studies/*.yaml; then
    echo "error: params.yaml is a study of your own, '$own': 'make study' runs it; to have '$name' in its place," >&2
    echo "       commit it and delete the file, then 'make study STUDY=$name' again" >&2
    exit 2
  fi
  known=no
  for study in studies/*.yaml; do
    if is_here "$study"; then known=yes; fi
  done
  if [ $known = no ] && ! git diff --quiet HEAD -- params.yaml 2>/dev/null; then
    echo "error: params.yaml has edits that are not committed: commit them (git commit params.yaml)," >&2
    echo "       or drop them (git checkout params.yaml), then 'make study STUDY=$name' again" >&2
    exit 2
  fi
fi
document "$wanted" > params.yaml.part
mv params.yaml.part params.yaml
echo "params.yaml is now the study '$name'"
