//! Bounds that every process of a cluster agrees on.

/// The newest form of commands and records that this program knows (`cluster_version`): placement
/// uses a form only once every member and every store knows it.
pub const KNOWN_VERSION: u32 = 5;
/// Longest key, in bytes. TiKV's default for raw keys is the same order of magnitude.
pub const MAX_KEY_BYTES: usize = 4 * 1024;
/// Longest value, in bytes. Stays below [`MAX_ENTRY_BYTES`].
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Largest command in a Raft log, in bytes.
pub const MAX_ENTRY_BYTES: usize = 3 * 1024 * 1024;
/// Most pairs or keys in one batch request.
pub const MAX_BATCH_ITEMS: usize = 10_240;
/// Most pairs a scan returns (TiKV clients refuse to ask for more).
pub const MAX_SCAN_LIMIT: u32 = 10_240;
/// Most bytes of keys and values in one answer: TiKV's clients decode at most 4 MiB.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Largest gRPC message between our own processes, in bytes.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Where a fresh cluster's sentinel last region begins: the memcomparable form of `ff`
/// (one group, seven bytes of padding), so that transactional clients can decode it.
pub const SENTINEL_START: &[u8] = &[0xff, 0, 0, 0, 0, 0, 0, 0, 0xf8];
/// Index (and term) at which the log of a bootstrapped or split-off region starts, so that a
/// peer that joins later can never be fed from the log alone and gets a snapshot.
pub const INITIAL_INDEX: u64 = 5;
