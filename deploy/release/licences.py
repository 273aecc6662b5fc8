"""Writes THIRD-PARTY-LICENSES: the licence texts of every crate in the program, and of the C libraries that some of them bring.

usage: licences.py [--check]     --check: exits 1 if the file is not current. Needs cargo, and the sources of the crates (cargo fetch).
"""
import collections
import difflib
import json
import pathlib
import re
import subprocess
import sys

FILE = pathlib.Path("THIRD-PARTY-LICENSES")
TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
NAME = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)(?!.*\.(rs|py|toml|json|hbs|html)$)", re.I)
NOT_SHIPPED = {"test", "tests", "testdata", "examples", "benches", "fuzz", "doc", "docs"}


def run(*command):
    return subprocess.run(["cargo", *command, "--locked"], check=True, capture_output=True, text=True).stdout


def packages():
    """The packages of the program, by name and version: without macros, which only run in the compiler."""
    metadata = json.loads(run("metadata", "--format-version=1"))
    known = {(package["name"], package["version"]): package for package in metadata["packages"] if package["source"]}
    tree = "".join(run("tree", "-p=ticketlog", "-e=normal,no-proc-macro", "--prefix=none", f"--target={target}") for target in TARGETS)
    used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    return {key: package for key, package in known.items() if (key[0], "v" + key[1]) in used}


def texts(package):
    """The licence files of a package, with their paths in it."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and NAME.match(path.name) and not NOT_SHIPPED.intersection(inner.parts) and path.stat().st_size < 200_000:
            yield str(inner), path.read_text(errors="replace")


def made():
    users, shown, without = collections.defaultdict(list), {}, collections.defaultdict(list)
    for (name, version), package in sorted(packages().items()):
        label = f"{name} {version}"
        declared = package["license"] or package["license_file"]
        files = list(texts(package))
        if not files:
            authors = ", ".join(re.sub(r" <.*?>", "", author) for author in package["authors"]) or f"the authors of {name}"
            without[declared].append(f"  {label} (copyright {authors})")
        for path, text in files:
            key = " ".join(text.split())
            shown.setdefault(key, "\n".join(line.rstrip() for line in text.strip().splitlines()))
            users[key].append(f"  {label} ({declared}): {path}")
    lines = ["Third-party licences of ticketlog", "",
             "The program contains Rust's standard library (MIT OR Apache-2.0), these crates, and the C libraries that some of them bring.",
             "Written by deploy/release/licences.py.", ""]
    rule = 100 * "="
    for key in sorted(users, key=lambda key: users[key][0]):
        lines += [rule, *users[key], 100 * "-", shown[key], ""]
    lines += [rule, "These come without a text of their own. Where a choice is declared, MIT applies, else the licence that is named; the texts of",
              "all of these are above or here.", ""]
    for declared in sorted(without):
        lines += [f"{declared}:", *without[declared], ""]
    mit = pathlib.Path("LICENSE-MIT").read_text().strip()
    lines += [100 * "-", "MIT, for those", "", mit[mit.index("Permission is"):], ""]
    return "\n".join(lines)


def main():
    text = made()
    if sys.argv[1:] == ["--check"]:
        known = FILE.read_text()
        if known != text:
            sys.stderr.writelines(line + "\n" for line in list(difflib.unified_diff(known.splitlines(), text.splitlines(), "known", "now", n=0))[:40])
            sys.exit("THIRD-PARTY-LICENSES is not current; run deploy/release/licences.py")
    else:
        FILE.write_text(text)


main()
