//! How long a routing lookup takes, as the client does it: under the lock, with a counted handle
//! to the region. Prints nanoseconds per lookup for several numbers of regions.
//!
//! `cargo run -p quorate-client --example router_bench`

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_client::router::Router;
use quorate_proto::{Epoch, KeyRange, Peer, PeerId, Region, RegionId, Role, StoreId};
use rand::{Rng, SeedableRng, rngs::SmallRng};

const LOOKUPS: usize = 2_000_000;
const KEYS: usize = 65_536;
const KEY_BYTES: usize = 16;

fn main() {
    for regions in [1, 100, 10_000, 100_000] {
        let router = RwLock::new(filled(regions));
        let mut random = SmallRng::seed_from_u64(7);
        // One after the other in memory: a caller has just made its key, so it is in the cache.
        let key = |number: u64| format!("user{number:012}").into_bytes();
        let keys: Vec<u8> =
            (0..KEYS).flat_map(|_| key(random.random_range(0..1_000_000_000_000))).collect();
        let began = Instant::now();
        for key in keys.chunks_exact(KEY_BYTES).cycle().take(LOOKUPS) {
            let route = router.read().lookup(black_box(key)).cloned();
            black_box(route);
        }
        let each = began.elapsed().as_nanos() as f64 / LOOKUPS as f64;
        println!("{regions:>7} regions  {each:>6.0} ns per lookup");
    }
}

/// Regions of equal size over the keys `user000000000000` and up.
fn filled(regions: u64) -> Router {
    let mut router = Router::default();
    let bound = |at: u64| match at {
        0 => Bytes::new(),
        at if at == regions => Bytes::new(),
        at => Bytes::from(format!("user{:012}", 1_000_000_000_000 / regions * at)),
    };
    for at in 0..regions {
        let peer =
            |store| Peer { id: PeerId(at * 3 + store), store: StoreId(store), role: Role::Voter };
        let region = Region {
            id: RegionId(at + 1),
            range: KeyRange { start: bound(at), end: bound(at + 1) },
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: vec![peer(1), peer(2), peer(3)],
        };
        assert!(router.insert(region, Some(PeerId(at * 3 + 1))), "regions do not overlap");
    }
    router
}
