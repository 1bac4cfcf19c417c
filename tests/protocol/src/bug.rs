//! Deliberate faults of the protocol: each leaves out one rule.

/// One rule that is left out. The checker must find each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The leader writes without asking for its term.
    NoFence,
    /// The fence reads the term and does not lock its row.
    FenceWithoutLock,
    /// The database lets an idle transaction hold its locks for ever.
    NoIdleTimeout,
    /// A leader that does not hear its own pings goes on renewing its lead.
    NeverResigns,
    /// A standby takes the lead though it does not hear its own pings.
    TakesWithoutPings,
    /// A lead that ends far in the future is believed.
    TrustsFarLead,

    /// A first ask of a session ends the leases of the others of its worker.
    NoHandshake,
    /// The question whether a session lives counts as the answer to its request.
    ProofIsAnswer,
    /// The handshake does not wait for the reports that were there when it began.
    ReplacesBeforeDrain,
    /// Leases expire while reports wait.
    ExpiresBeforeDrain,
    /// Reports that were delivered and not confirmed are not waited for.
    DrainIgnoresDelivered,
    /// Leases expire however long the leader was deaf.
    NoHearing,
    /// An outage that ends within one interval of heartbeats does not count as deafness.
    ForgivesShortGaps,
    /// A lease that ends far in the future is believed.
    TrustsFarLease,
    /// Grants whose answer was lost are not repeated.
    NoResend,
    /// A request is served though its session has sent a newer one.
    OldAsksServed,
    /// A worker takes jobs from an answer to a request that it has given up.
    AcceptsOldAnswers,
    /// A worker forgets a final report when the broker has it.
    ForgetsConfirmed,
    /// A second result is stored too.
    EveryResultStored,
    /// Reports of any attempt change the state of the job.
    StaleReportsCount,
    /// A job that is handed back has failed once more.
    HandBackCounts,
    /// A job that somebody has is granted again.
    GrantsLeased,
    /// A report of the result is ignored unless it comes from the attempt that has the job.
    LateResultsIgnored,

    /// Lost attempts are not counted.
    LossesUncounted,
    /// A lost job is granted together with others.
    NoAlone,
    /// A lost job is granted alone, but others are granted beside it later.
    AloneOneWay,

    /// Saved states do not set the losses back.
    ProgressIgnored,
    /// Only what is beyond the furthest state of all times counts as progress.
    FurthestCounts,
    /// Only a state that was saved and heard of within an attempt counts as progress.
    OnlyHeardProgress,

    /// A result that is delivered a second time counts again.
    DoubleRevives,
    /// Weights with another hash replace those that evaluations have used.
    ReplacesUsedWeights,
    /// Results of evaluations of replaced weights count.
    NothingIsVoid,
    /// Evaluations stay as they are when their checkpoints are missing.
    EvaluationsStay,

    /// Whether work advances is judged by a timer, not when a heartbeat arrives.
    StallsByTimer,
    /// How long work has not advanced is remembered from an earlier lead.
    AgesOutliveLead,
    /// Only the expiry of leases ends attempts.
    NeverStalls,
}
