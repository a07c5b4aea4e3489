//! The commands as a person types them, on a cluster that `quorate up` made.

use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use quorate_tests::process::{Ran, run};

/// A folder with a cluster of `quorate up`, taken down in the end.
struct Up {
    home: tempfile::TempDir,
    // The program looks for free ports and takes them later: two at once would find the same.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Up {
    fn new() -> Up {
        let _alone = ALONE.lock();
        Up { home: tempfile::Builder::new().prefix("quorate-up-").tempdir().unwrap(), _alone }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(self.home.path(), arguments)
    }

    fn up(&self, more: &[&str]) -> Ran {
        let data = self.data();
        let mut arguments = vec!["up", "--data", data.to_str().unwrap()];
        arguments.extend(more);
        self.run(&arguments)
    }

    fn down(&self) -> Ran {
        self.run(&["down", "--data", self.data().to_str().unwrap()])
    }

    /// What the cluster consists of, without the processes that come and go.
    fn description(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.data().join("cluster.toml")).unwrap();
        let kept = ["role", "number", "address", "status_address"];
        let lines = text
            .lines()
            .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| kept.contains(&key)));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.data().join("cluster.toml").is_file() {
            self.run(&["down", "--force", "--data", self.data().to_str().unwrap()]);
        }
    }
}

fn pids(data: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(data.join("cluster.toml")).unwrap();
    let pids = text.lines().filter_map(|line| line.strip_prefix("pid = "));
    pids.map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn a_cluster_from_nothing_and_the_same_one_again() {
    let cluster = Up::new();
    let up = cluster.up(&["--wait", "90"]).with_code(0);
    for words in ["placement-1..3", "store-1..3", "2 regions, 3/3 replicas", "kv put hello world"] {
        assert!(up.stdout.contains(words), "{words:?} is not in {}", up.stdout);
    }
    assert_eq!(pids(&cluster.data()).len(), 6);

    // No address is needed: the last cluster is remembered.
    let put = cluster.run(&["kv", "put", "hello", "world"]).with_code(0);
    assert_eq!((put.stdout.as_str(), put.stderr.as_str()), ("", ""));
    assert_eq!(cluster.run(&["kv", "get", "hello"]).with_code(0).stdout, "world\n");
    let bytes = cluster.run(&["kv", "put", r"b\x00c", r"\xff"]).with_code(0);
    assert_eq!(bytes.stdout, "");
    assert_eq!(cluster.run(&["kv", "get", r"b\x00c"]).with_code(0).stdout, "\\xff\n");
    let scan = cluster.run(&["kv", "scan"]).with_code(0);
    assert_eq!(scan.stdout, "b\\x00c\t\\xff\nhello\tworld\n");
    let reverse = cluster.run(&["kv", "scan", "--reverse", "--limit", "1"]).with_code(0);
    assert_eq!(reverse.stdout, "hello\tworld\n");
    cluster.run(&["kv", "delete", r"b\x00c"]).with_code(0);
    cluster.run(&["kv", "get", r"b\x00c"]).refused(1, &[r"no value under b\x00c"]);
    cluster.run(&["kv", "delete", r"b\x00c"]).with_code(0);

    let status = cluster.run(&["status"]).with_code(0).stdout;
    assert!(status.contains("HEALTHY · survives 1 store failure · 2 regions"), "{status}");
    let stores = cluster.run(&["store", "list", "-o", "json"]).with_code(0).stdout;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&stores).unwrap().as_array().unwrap().len(),
        3
    );
    let split = cluster.run(&["region", "split", "m", "t"]).with_code(0);
    assert!(!split.stdout.is_empty());
    let regions = cluster.run(&["region", "list"]).with_code(0).stdout;
    assert_eq!(regions.lines().count(), 4, "{regions}");
    let shown = cluster.run(&["region", "show", "--key", "n"]).with_code(0).stdout;
    assert!(shown.contains('m') && shown.contains('t'), "{shown}");

    let before = (cluster.description(), pids(&cluster.data()));
    let second = cluster.up(&[]).with_code(0);
    assert!(second.stderr.contains("already running: 6 processes"), "{}", second.stderr);
    assert_eq!((cluster.description(), pids(&cluster.data())), before);

    let down = cluster.down().with_code(0).stdout;
    assert!(down.contains("stopped 6 processes") && down.contains("data kept"), "{down}");
    assert!(cluster.down().with_code(0).stdout.contains("not running"));
    cluster
        .run(&["kv", "get", "hello", "--timeout", "1"])
        .refused(3, &["placement", "unreachable"]);

    cluster.up(&["--wait", "90"]).with_code(0);
    assert_eq!(cluster.description(), before.0, "the addresses are the same");
    assert_eq!(cluster.run(&["kv", "get", "hello"]).with_code(0).stdout, "world\n");
    let again = cluster.run(&["region", "list"]).with_code(0).stdout;
    assert_eq!(again.lines().count(), 4, "{again}");
    cluster.up(&["--stores", "4"]).refused(1, &["has 3 store processes, not 4", "--data"]);
    cluster.down().with_code(0);
}

#[test]
fn one_more_store_is_remembered_and_every_process_restarted() {
    let cluster = Up::new();
    cluster.up(&["--placements", "1", "--wait", "90"]).with_code(0);
    cluster.run(&["kv", "put", "hello", "world"]).with_code(0);
    let added = cluster.run(&["store", "add"]).with_code(0).stdout;
    assert!(added.starts_with("store-4 joined as s"), "{added}");
    assert_eq!(pids(&cluster.data()).len(), 5);
    let stores = cluster.run(&["store", "list"]).with_code(0).stdout;
    assert_eq!(stores.lines().count(), 4, "{stores}");

    let before = pids(&cluster.data());
    let restarted = cluster.run(&["rolling-restart", "--wait", "80"]).with_code(0);
    assert!(restarted.stdout.starts_with("restarted 5 processes"), "{}", restarted.stdout);
    for name in ["1 of 5: store-1", "4 of 5: store-4", "5 of 5: placement-1"] {
        assert!(restarted.stderr.contains(name), "{}", restarted.stderr);
    }
    let after = pids(&cluster.data());
    assert!(after.len() == 5 && after.iter().all(|pid| !before.contains(pid)), "{after:?}");
    assert_eq!(cluster.run(&["kv", "get", "hello"]).with_code(0).stdout, "world\n");

    // With one store away, one more could cost a quorum.
    kill_9(&after, 1);
    let refused = cluster.run(&["rolling-restart", "--only", "stores", "--wait", "4"]);
    refused.refused(2, &["stopped before store-1: store-1 does not run", "could cost"]);
    let left = pids(&cluster.data()).into_iter().filter(|pid| is_alive(*pid)).count();
    assert_eq!(left, 4, "nobody else was ended");

    cluster.down().with_code(0);
    cluster.up(&["--wait", "90"]).with_code(0);
    let stores = cluster.run(&["store", "list"]).with_code(0).stdout;
    assert_eq!(stores.lines().count(), 4, "the fourth store is remembered: {stores}");
    assert_eq!(cluster.run(&["kv", "get", "hello"]).with_code(0).stdout, "world\n");

    // One that was taken out is neither restarted nor started again.
    cluster.run(&["store", "remove", "s2", "--watch"]).with_code(0);
    let restarted = cluster.run(&["rolling-restart", "--wait", "80"]).with_code(0);
    assert!(restarted.stdout.starts_with("restarted 4 processes"), "{}", restarted.stdout);
    assert!(restarted.stderr.contains("store-2 has left"), "{}", restarted.stderr);
    cluster.down().with_code(0);
    cluster.up(&["--wait", "90"]).with_code(0);
    assert_eq!(pids(&cluster.data()).len(), 4);
    assert_eq!(cluster.run(&["kv", "get", "hello"]).with_code(0).stdout, "world\n");
    cluster.down().with_code(0);
}

#[test]
fn what_is_not_there_is_refused_in_words() {
    let home = tempfile::tempdir().unwrap();
    run(home.path(), &["store", "add"]).refused(3, &["no cluster is known", "quorate up"]);
    run(home.path(), &["rolling-restart"]).refused(3, &["no cluster is known"]);
    run(home.path(), &["member", "promote", "r7"]).refused(1, &["r7/s4", "placement/4"]);
    run(home.path(), &["settings", "set", "replicas"]).refused(1, &["NAME=VALUE"]);
}

/// kill -9 of one process of a cluster, and waits until it is gone.
fn kill_9(pids: &[u32], which: usize) {
    let pid = libc::pid_t::try_from(pids[which]).unwrap();
    // SAFETY: kill has no memory effects; the pid is that of a process of our own cluster.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    while is_alive(pids[which]) {
        std::thread::yield_now();
    }
}

/// True while a process runs; its remains do not count.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
