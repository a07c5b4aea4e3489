//! A disk that is full: the store says so and stops, and what it had acknowledged is there.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Client, ClientOptions};
use quorate_tests::process::{Cluster, Shape};

use crate::RECOVERY;

/// Room for a few memtables and logs of the small store below.
const SMALL_MIB: u32 = 64;
const LARGE_MIB: u32 = 512;
const VALUE: usize = 256 * 1024;
/// Writes that fill the disk several times.
const WRITES: usize = 1_000;

/// A small disk in memory.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one; that takes the rights of the administrator.
    fn mount(path: &Path) -> io::Result<Disk> {
        std::fs::create_dir_all(path)?;
        mount(path, 0, SMALL_MIB)?;
        Ok(Disk { path: path.to_owned() })
    }

    fn grow(&self) {
        mount(&self.path, libc::MS_REMOUNT, LARGE_MIB).unwrap();
    }
}

fn mount(path: &Path, flags: libc::c_ulong, mib: u32) -> io::Result<()> {
    let target = CString::new(path.to_str().unwrap()).unwrap();
    let options = CString::new(format!("size={mib}m")).unwrap();
    // SAFETY: all pointers are to texts that end in a zero and live over the call.
    let done = unsafe {
        let (kind, options) = (c"tmpfs".as_ptr(), options.as_ptr().cast());
        libc::mount(kind, target.as_ptr(), kind, flags, options)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let target = CString::new(self.path.to_str().unwrap()).unwrap();
        // SAFETY: the text ends in a zero and lives over the call.
        let done = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        if done != 0 {
            eprintln!("{} stays mounted: {}", self.path.display(), io::Error::last_os_error());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match Disk::mount(&folder.path().join("disk")) {
        Ok(disk) => disk,
        Err(error) => {
            println!("skipped: no small disk can be mounted ({error}); it takes root");
            return;
        }
    };
    let shape = Shape::small()
        .store_flag(&format!("--data={}", disk.path.display()))
        .store_flag("--engine-memtable-mib=4")
        .store_flag("--engine-wal-mib=8");
    let mut cluster = Cluster::start(shape).await;
    let options = ClientOptions { deadline: Duration::from_secs(3), ..ClientOptions::default() };
    let client = Client::connect(&cluster.placement_addresses(), options).await.unwrap();
    let key = |number: usize| Bytes::from(format!("fill/{number:05}"));
    // What a compaction cannot shrink, and different for every key.
    let value = |number: usize| {
        let mut state = number as u64 + 1;
        let byte = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        Bytes::from_iter((0..VALUE).map(byte))
    };
    let mut acknowledged = Vec::new();
    let mut refused = None;
    for number in 0..WRITES {
        match client.put(key(number), value(number)).await {
            Ok(()) => acknowledged.push(number),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("a disk of 64 MiB does not hold 250");
    println!("{} writes of 256 KiB, then: {refused}", acknowledged.len());
    assert!(acknowledged.len() > 20, "only {} writes went through", acknowledged.len());

    let store = &mut cluster.stores[0];
    store.refuses(
        RECOVERY,
        &["no space left", "free some or grow the disk", "nothing acknowledged is lost"],
    );
    disk.grow();
    store.start();
    cluster.healthy().await;
    let client = cluster.client().await;
    for number in acknowledged {
        let found = client.get(key(number)).await.unwrap();
        assert!(found == Some(value(number)), "write {number} was acknowledged and is lost");
    }
    client.put("after", "it goes on").await.unwrap();
}
