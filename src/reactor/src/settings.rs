//! What a reactor can be told; one value for all shards.

use crate::admission::AdmissionSettings;

/// Settings of a reactor. The defaults suit a machine with many connections and small messages.
#[derive(Debug, Clone)]
pub struct ReactorSettings {
    /// Entries of the submission queue; a power of two. 64 bytes each.
    pub submission_entries: u32,
    /// Entries of the completion queue; a power of two, at least the submission queue's. 16 bytes each.
    pub completion_entries: u32,
    /// Most connections of one shard (entries of its direct descriptor tables). None: what `rings_max` tables hold.
    pub connections_max: Option<u32>,
    /// Most entries of one table; `RLIMIT_NOFILE` caps it. None: that limit.
    pub table_entries_max: Option<u32>,
    /// Most rings of one shard, each with its table.
    pub rings_max: u32,
    /// Receive buffers per shard; a power of two up to 32,768.
    pub buffers: u16,
    /// Size of a receive buffer in bytes.
    pub buffer_bytes: u32,
    /// Completions handled in one tick; the rest wait for the next.
    pub tick_completions_max: usize,
    /// Commands of the control plane handled in one tick.
    pub tick_commands_max: usize,
    /// Bytes of one connection handed to the shard in one tick; the rest waits for the next tick.
    pub tick_bytes_max: u32,
    /// Time to look for work before waiting in the kernel, in microseconds; 0 waits at once.
    pub spin_us: u32,
    /// Multishot accept; off takes one-shot accepts, as kernels before 6.7 do anyway.
    pub multishot_accept: bool,
    /// Time an accept rests after the table was full, in milliseconds.
    pub accept_backoff_ms: u64,
    /// How connections are let in.
    pub admission: AdmissionSettings,
    /// Time a closing connection has to take what is still to be sent, in milliseconds.
    pub linger_send_ms: u64,
    /// Time a closing connection has, after everything was sent, to close its side, in milliseconds.
    pub linger_drain_ms: u64,
    /// Shares of the shard's background work; the loop itself has 1,000.
    pub background_shares: usize,
}

impl Default for ReactorSettings {
    fn default() -> Self {
        Self {
            submission_entries: 2048,
            completion_entries: 16_384,
            connections_max: None,
            table_entries_max: None,
            rings_max: 256,
            buffers: 512,
            buffer_bytes: 8192,
            tick_completions_max: 1024,
            tick_commands_max: 64,
            tick_bytes_max: 256 << 10,
            spin_us: 0,
            multishot_accept: true,
            accept_backoff_ms: 100,
            admission: AdmissionSettings::default(),
            linger_send_ms: 5000,
            linger_drain_ms: 1000,
            background_shares: 100,
        }
    }
}
