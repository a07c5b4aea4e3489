//! The one place that touches the core's constructors.

use quorate_consensus::engine::{Engine, MemoryEngine};
use quorate_consensus::time::Instant;
use quorate_placement::core::command::{Answer, CLUSTER_VERSION, Command, Joining, Member};
use quorate_placement::core::report::{Report, StoreStats};
use quorate_placement::core::state::State;
use quorate_placement::core::tree::{RegionInfo, RegionStats};
use quorate_proto::{Epoch, KeyRange, NodeId, Peer, PeerId, Region, RegionId, Role, StoreId, Term};

/// A state machine with its disk, as a member runs it.
#[derive(Default)]
pub struct Machine {
    pub state: State,
    pub engine: MemoryEngine,
}

impl Machine {
    /// Of a cluster that was founded at that version, with so many stores, all of them active.
    pub fn older(version: u32, stores: u64) -> Self {
        let mut founded = initialize(77, 3);
        if let Command::Initialize { version: now, .. } = &mut founded {
            *now = version;
        }
        let mut machine = Machine::default();
        machine.apply(founded);
        for store in 1..=stores {
            machine.apply(Command::JoinStore(joining(store)));
            machine.apply(Command::ActivateStore(StoreId(store)));
        }
        machine
    }

    /// Applies a command the way it comes out of the log, and writes what it leaves.
    pub fn apply(&mut self, command: Command) -> Answer {
        let mut bytes = command.encode();
        let decoded = Command::decode(&mut bytes).unwrap();
        assert_eq!(decoded, command, "a command survives its encoding");
        assert!(bytes.is_empty(), "a command is decoded to its end");
        let (answer, batch) = self.state.apply(decoded);
        self.engine.write(batch).unwrap();
        answer
    }

    /// What a restarted member would load.
    pub fn reloaded(&self) -> State {
        State::load(&self.engine).unwrap()
    }

    /// A cluster with these stores, bootstrapped where that many are wanted.
    pub fn cluster(initial_stores: u32, stores: u64) -> Self {
        let mut machine = Machine::default();
        machine.apply(initialize(77, initial_stores));
        for number in 1..=stores {
            let answer = machine.apply(Command::JoinStore(joining(number)));
            assert_eq!(answer, Answer::Joined(StoreId(number)));
        }
        machine.apply(Command::Bootstrap);
        machine
    }
}

pub fn initialize(cluster_id: u64, initial_stores: u32) -> Command {
    let members = (1..=3)
        .map(|id| Member {
            id: NodeId(id),
            name: format!("placement-{id}"),
            address: format!("127.0.0.1:237{id}"),
            role: Role::Voter,
        })
        .collect();
    Command::Initialize {
        cluster_id,
        members,
        initial_stores,
        replicas: 3,
        version: CLUSTER_VERSION,
    }
}

/// A store with an empty folder announces itself.
pub fn joining(number: u64) -> Joining {
    Joining {
        address: format!("127.0.0.1:{}", 20_000 + number),
        status_address: format!("127.0.0.1:{}", 21_000 + number),
        version: "0.1.0".to_owned(),
        incarnation: 1,
        data_id: 1_000 + number,
        ..Joining::default()
    }
}

/// A region `[start, end)` with voters on the stores 1 to 3.
pub fn region(id: u64, start: &str, end: &str, version: u64) -> Region {
    let peer =
        |store: u64| Peer { id: PeerId(id * 10 + store), store: StoreId(store), role: Role::Voter };
    Region {
        id: RegionId(id),
        range: KeyRange::new(start.as_bytes().to_vec(), end.as_bytes().to_vec()),
        epoch: Epoch { conf_ver: 1, version },
        peers: (1..=3).map(peer).collect(),
    }
}

/// What the leader on `store` says of a region.
pub fn led(region: &Region, store: u64, term: u64) -> RegionInfo {
    RegionInfo {
        leader: region.peer_on(StoreId(store)).copied(),
        region: region.clone(),
        term: Term(term),
        down: Vec::new(),
        pending: Vec::new(),
        progress: Vec::new(),
        last_index: Default::default(),
        merging: None,
        stats: RegionStats::default(),
        led: true,
    }
}

/// A report of `store`.
pub fn report(store: u64, full: bool, regions: Vec<RegionInfo>) -> Report {
    let stats = StoreStats::default();
    Report {
        store: StoreId(store),
        incarnation: 1,
        stats,
        regions,
        full,
        sequence: 1,
        refusals: Vec::new(),
        unled: Vec::new(),
        hosted: Vec::new(),
        unheard: Vec::new(),
    }
}

pub fn seconds(seconds: u64) -> Instant {
    Instant::from_millis(1_000 + seconds * 1_000)
}
