//! What an acknowledged write has survived.

/// When a change counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The primary has it. A failover may undo it.
    #[default]
    Memory,
    /// Replicas of the primary have it too, or the caller is told that its outcome is unknown.
    Replicated {
        /// How many replicas must have it.
        replicas: u32,
        /// Longest that a change waits for them, ms.
        timeout_ms: u64,
    },
}
