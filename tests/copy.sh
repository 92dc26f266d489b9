# Sourced by the scripts that make mistakes in a copy of the project, from its root.
# shellcheck shell=bash

# Puts into this directory what is here and not ignored, as old as it is.
copy_project() {
    git ls-files -z --cached --others --exclude-standard |
        tar --create --null --files-from=- --ignore-failed-read 2>/dev/null |
        tar --extract --directory="$1"
}
