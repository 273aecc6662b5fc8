//! Programs whose wall clock is wrong: a library that the dynamic linker loads first shifts it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void) { const char *text = getenv("TEST_CLOCK_OFFSET"); return text ? atol(text) : 0; }

int clock_gettime(clockid_t clock, struct timespec *at) {
  int result = syscall(SYS_clock_gettime, clock, at);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += offset();
  return result;
}

int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"#;

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = directory.path().join("clock.c");
    std::fs::write(&source, SOURCE).unwrap();
    let built = directory.path().join("clock.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&built, &source]).status().unwrap();
    assert!(compiled.success(), "cc compiles the library that shifts the clock");
    // Several test processes may do this at the same time: each renames its own file into place.
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clock.so");
    std::fs::rename(built, &library).unwrap();
    library
});

/// The program will read a clock that is this many seconds ahead, or behind if negative.
pub fn shift_clock(command: &mut Command, seconds: i64) {
    command.env("LD_PRELOAD", &*LIBRARY).env("TEST_CLOCK_OFFSET", seconds.to_string());
}
