//! What consensus itself costs: three shards in one thread, without network, closed loop.
//!
//! `cargo run -p quorate-consensus --example shard_bench -- [--rocks] [--groups N] [--value BYTES]`
//!
//! The first process leads all groups. In each round, a number of commands is spread over the
//! groups, and everybody works until all are applied. Printed is CPU time for each command, by who
//! spent it: the leader's shard, one follower's shard, and the engines (all three). The state
//! machine does nothing. With `--rocks`, writes are synced as in production.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::engine::{Engine, EngineError, MemoryEngine, RocksEngine, RocksOptions};
use quorate_consensus::shard::{Effects, Event, Member, NewGroup, Outgoing, RaftOptions, Shard};
use quorate_consensus::time::Instant;
use quorate_consensus::view::GroupView;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};

/// As in the real processes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECONDS: f64 = 2.0;

/// CPU time of this thread, in seconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

struct Process {
    shard: Shard<u64>,
    engine: Arc<dyn Engine>,
    inbox: Vec<(NodeId, Envelope)>,
    shard_seconds: f64,
    engine_seconds: f64,
}

struct Bench {
    processes: Vec<Process>,
    views: Vec<Arc<GroupView>>,
    now: Instant,
    applied: u64,
}

impl Bench {
    /// One turn of a process: messages in, effects out. False where it has nothing to do.
    fn turn(&mut self, at: usize) -> Result<bool, EngineError> {
        let now = self.now;
        let process = &mut self.processes[at];
        if process.inbox.is_empty() && !process.shard.has_work() {
            return Ok(false);
        }
        let began = cpu();
        for (from, envelope) in process.inbox.drain(..) {
            process.shard.step(Event::Message { from, envelope: Box::new(envelope) }, now);
        }
        let mut effects: Effects<u64> = process.shard.collect(now);
        let collected = cpu();
        let mut written = collected;
        if let Some(persist) = effects.persist.take() {
            if persist.sync {
                process.engine.write_synced(persist.batch)?;
            } else {
                process.engine.write(persist.batch)?;
            }
            written = cpu();
            process.shard.persisted(persist.number);
        }
        for task in &effects.apply {
            let Some(last) = task.entries.last() else { continue };
            let tokens: usize = task.entries.iter().map(|entry| entry.tokens.len()).sum();
            self.applied += tokens as u64;
            let (index, term) = (last.index, last.term);
            process.shard.step(Event::Applied { group: task.group, index, term }, now);
        }
        process.shard_seconds += (collected - began) + (cpu() - written);
        process.engine_seconds += written - collected;
        for Outgoing { to, envelope, .. } in effects.send {
            self.processes[to.0 as usize - 1].inbox.push((NodeId(at as u64 + 1), envelope));
        }
        Ok(true)
    }

    fn settle(&mut self) -> Result<(), EngineError> {
        while self.turn(0)? | self.turn(1)? | self.turn(2)? {}
        Ok(())
    }

    fn tick(&mut self) -> Result<(), EngineError> {
        self.now = self.now + Duration::from_millis(100);
        for process in &mut self.processes {
            process.shard.step(Event::Tick, self.now);
        }
        self.settle()
    }

    fn run(&mut self, batch: u64, value: &Bytes) -> Result<(), EngineError> {
        for process in &mut self.processes {
            (process.shard_seconds, process.engine_seconds) = (0.0, 0.0);
        }
        self.applied = 0;
        let groups = self.views.len() as u64;
        let (began, mut turn, mut rounds) = (std::time::Instant::now(), 0u64, 0u64);
        while began.elapsed().as_secs_f64() < SECONDS {
            let start = cpu();
            for _ in 0..batch {
                turn = turn
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let group = RegionId(1 + (turn >> 33) % groups);
                let (command, token) = (value.clone(), turn);
                let event = Event::Propose { group, command, token, suspends_lease: false };
                self.processes[0].shard.step(event, self.now);
            }
            self.processes[0].shard_seconds += cpu() - start;
            self.settle()?;
            rounds += 1;
            // A tick for each tenth of a second of rounds that take half a millisecond each.
            if rounds.is_multiple_of(200) {
                self.tick()?;
            }
        }
        assert_eq!(self.applied, rounds * batch, "every command is applied once");
        let micros = |seconds: f64| seconds * 1e6 / self.applied as f64;
        let engines: f64 = self.processes.iter().map(|process| process.engine_seconds).sum();
        println!(
            "{batch:>5}  {:>9.0}/s  {:>10.2}  {:>10.2}  {:>10.2}",
            self.applied as f64 / began.elapsed().as_secs_f64(),
            micros(self.processes[0].shard_seconds),
            micros((self.processes[1].shard_seconds + self.processes[2].shard_seconds) / 2.0),
            micros(engines),
        );
        Ok(())
    }
}

fn main() -> Result<(), EngineError> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1))
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let rocks = arguments.iter().any(|argument| argument == "--rocks");
    let (groups, value) = (option("--groups", 100), option("--value", 256) as usize);
    let folder = std::env::temp_dir().join(format!("quorate-shard-bench-{}", std::process::id()));
    let now = Instant::from_millis(1_000);
    let mut processes = Vec::new();
    for number in 1..=3 {
        let engine: Arc<dyn Engine> = if rocks {
            let options = RocksOptions::default();
            Arc::new(RocksEngine::open(folder.join(number.to_string()), &options)?)
        } else {
            Arc::new(MemoryEngine::new())
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let shard = Shard::new(RaftOptions::default(), engine.clone(), number, logger, now);
        let (shard_seconds, engine_seconds) = (0.0, 0.0);
        processes.push(Process { shard, engine, inbox: Vec::new(), shard_seconds, engine_seconds });
    }
    let members: Vec<Member> =
        (1..=3).map(|n| Member { peer: PeerId(n), node: NodeId(n), role: Role::Voter }).collect();
    let mut views = Vec::new();
    for group in (1..=groups).map(RegionId) {
        for (process, member) in processes.iter_mut().zip(&members) {
            let view = GroupView::new(group, member.peer);
            if member.peer.0 == 1 {
                views.push(view.clone());
            }
            let new = NewGroup {
                group,
                peer: member.peer,
                members: members.clone(),
                applied: (LogIndex(5), Term(5)),
                view,
                campaign: false,
            };
            process.shard.step(Event::Create(Box::new(new)), now);
        }
    }
    let mut bench = Bench { processes, views, now, applied: 0 };
    while !bench.views.iter().all(|view| view.is_leader()) {
        bench.tick()?;
        for group in (1..=groups).map(RegionId) {
            for process in &mut bench.processes {
                process.shard.step(Event::TransferLeader { group, to: NodeId(1) }, bench.now);
            }
        }
        bench.settle()?;
    }
    println!("batch   commands   µs leader   µs follower  µs engines");
    for batch in [1, 16, 64, 256] {
        bench.run(batch, &Bytes::from(vec![7; value]))?;
    }
    drop(bench);
    if rocks && let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("could not remove {}: {error}", folder.display());
    }
    Ok(())
}
