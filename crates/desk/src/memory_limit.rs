//! How much memory the process of an expression may use, so that it never takes that of the console or command that started it.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Most of it, in bytes.
const MAX: u64 = 2 << 30;
/// What the program itself needs of its address space, in bytes.
const PROGRAM: u64 = 48 << 20;

/// The address space, in bytes: a quarter of what the container or systemd unit may use, and 2 GiB at most.
pub(super) fn address_space() -> u64 {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit(Path::new("/sys/fs/cgroup"), &groups).map_or(MAX, of_limit)
}

fn of_limit(bytes: u64) -> u64 {
    (bytes / 4).saturating_add(PROGRAM).min(MAX)
}

/// The smallest memory limit of the control groups that `/proc/self/cgroup` names (cgroups(7), version 2 or 1) and of those above.
/// Inside a container the names may be those of the host: then only the root exists, which is the container's own.
fn limit(root: &Path, groups: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let groups: Vec<PathBuf> =
            Path::new(path.trim_start_matches('/')).ancestors().map(|at| root.join(at)).collect();
        groups.iter().filter_map(|group| read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok()).min()
    };
    groups.lines().filter_map(of_line).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_the_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("system.slice/console.service/memory.max", "max\n");
        write("system.slice/memory.max", "536870912\n");
        write("memory/pod/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/memory.limit_in_bytes", "268435456\n");
        let of = |groups| limit(root.path(), groups);
        assert_eq!(of("0::/system.slice/console.service\n"), Some(512 << 20));
        assert_eq!(of("9:name=systemd:/\n4:cpu,memory:/pod\n0::/\n"), Some(256 << 20));
        assert_eq!(of("4:memory:/docker/of-the-host\n"), Some(256 << 20), "the root of a container");
        assert_eq!([of("0::/\n"), of("1:cpu:/\n"), of("")], [None; 3]);
    }

    #[test]
    fn a_quarter_is_left_for_it() {
        assert_eq!(of_limit(512 << 20), (128 << 20) + PROGRAM);
        assert_eq!(of_limit(u64::MAX), MAX);
    }
}
