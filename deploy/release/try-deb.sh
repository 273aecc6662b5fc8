#!/usr/bin/env bash
# Tries the .deb in a fresh root of Debian: upgraded from 0.2.0, removed, purged, installed afresh. In the root, `systemctl` writes down
# what it is asked; only `enable` and `disable` are real, because nothing runs there. As root; needs debootstrap and the network.
# usage: try-deb.sh DEB [SUITE]      SUITE: bookworm [default], trixie, …
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 64; }
deb=$(realpath "$1") suite=${2:-bookworm}
work=$(mktemp -d); root=$work/root
trap 'umount -q "$root/proc" || true; rm -rf "$work"' EXIT
say() { printf 'try-deb: %s\n' "$*"; }
die() { say "$*" >&2; cat "$work"/*.log >&2; exit 1; }
in_root() { chroot "$root" env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
dpkg_run() { : >"$root/asked"; in_root dpkg "$@" >"$work/dpkg.log" 2>&1 || die "dpkg $* failed"; }
asked() { grep -qF -- "$1" "$root/asked" || die "systemctl was not asked to: $1"; }
enabled() { find "$root/etc/systemd/system" -name 'ticketlog*' -type l -printf '%f ' | sort; }
mode() { stat -c %a "$root$1"; }

# On another distribution: debootstrap's own choice.
mirror=; ! grep -q '^ID=debian' /etc/os-release || mirror=$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } |
  awk '/^URIs:/{print $2; exit} /^deb /{for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}')
say "making a root of Debian $suite"
debootstrap --variant=minbase --include=systemd,ca-certificates "$suite" "$root" ${mirror:+"$mirror"} >"$work/debootstrap.log" || die 'debootstrap failed'
mount -t proc proc "$root/proc"; mkdir -p "$root/run/systemd/system"
cat >"$root/usr/local/bin/systemctl" <<'F'
#!/bin/sh
echo "$*" >>/asked
case " $* " in *' enable '* | *' disable '*) SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl "$@" ;; esac
F
chmod 755 "$root/usr/local/bin/systemctl"

# 0.2.0 had the same files and no maintainer scripts.
dpkg-deb -R "$deb" "$work/old"; rm -f "$work"/old/DEBIAN/{postinst,prerm,postrm}; sed -i 's/^Version:.*/Version: 0.2.0-0/' "$work/old/DEBIAN/control"
dpkg-deb -b "$work/old" "$root/old.deb" >"$work/build.log"; cp "$deb" "$root/new.deb"

dpkg_run -i /old.deb
in_root systemctl enable ticketlog ticketlog@refresh 2>"$work/enable.log"
echo secret >"$root/etc/ticketlog/broker-uri"; echo '# mine' >>"$root/etc/ticketlog/ticketlog.toml"
dpkg_run -i /new.deb
asked 'try-restart ticketlog.service ticketlog@*.service ticketlog-console.service'
[ "$(mode /etc/ticketlog)" = 700 ] || die "/etc/ticketlog has mode $(mode /etc/ticketlog)"
[ "$(enabled | wc -w)" = 2 ] || die "enabled after the upgrade: $(enabled)"
grep -q mine "$root/etc/ticketlog/ticketlog.toml" || die 'the settings were replaced'
in_root ticketlog --version >"$work/version.log" || die 'the program does not run'
say "upgraded: $(cat "$work/version.log")"
in_root systemd-analyze verify ticketlog.service ticketlog-console.service ticketlog@x.service >"$work/verify.log" 2>&1 || die 'systemd-analyze verify'
if grep -i ticketlog "$work/verify.log"; then die 'systemd-analyze has complaints'; fi

dpkg_run -r ticketlog
asked 'stop ticketlog.service ticketlog@*.service ticketlog-console.service'
[ -z "$(enabled)" ] || die "enabled after the removal: $(enabled)"
[ -e "$root/etc/ticketlog/ticketlog.toml" ] || die 'a removal takes the settings'
[ ! -e "$root/usr/bin/ticketlog" ] || die 'a removal leaves the program'
dpkg_run -P ticketlog
[ ! -e "$root/etc/ticketlog/ticketlog.toml" ] || die 'a purge leaves the settings'
[ -e "$root/etc/ticketlog/broker-uri" ] || die 'a purge takes the files of the administrator'
say 'removed and purged'

rm -rf "$root/etc/ticketlog"
dpkg_run -i /new.deb
if grep -qE 'start|enable' "$root/asked"; then die 'a fresh installation starts something'; fi
[ "$(mode /etc/ticketlog)/$(mode /etc/ticketlog/ticketlog.toml)" = 700/600 ] || die "modes $(mode /etc/ticketlog), $(mode /etc/ticketlog/ticketlog.toml)"
dpkg_run -P ticketlog
[ ! -e "$root/etc/ticketlog" ] || die 'a purge of a fresh installation leaves /etc/ticketlog'
say 'installed afresh and purged; all checks passed'
