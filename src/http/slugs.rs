//! Every kind of problem that this service answers, in one table: its slug, its status, its title
//! and the text of its page at `/problems/<slug>`.

use actix_web::http::StatusCode;

/// A row of the table.
struct Kind {
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
    page: &'static str,
}

macro_rules! slugs {
    ($($name:ident $slug:literal $status:ident $title:literal $page:literal;)+) => {
        /// A kind of problem. That each has a status and a page is so by construction.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Slug {
            $(#[doc = $title] $name,)+
        }

        const KINDS: &[Kind] = &[
            $(Kind { slug: $slug, status: StatusCode::$status, title: $title, page: $page },)+
        ];

        impl Slug {
            /// Every kind, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

slugs! {
    InvalidRequest "invalid-request" BAD_REQUEST "The request is not valid"
        "The body is not well-formed JSON or not an object, or a member, a query parameter or a \
         header is missing, unknown, of the wrong type or out of range. `errors` names each field \
         and says what it must be. Mend the request; sending it again unchanged cannot succeed.";
    Unauthorized "unauthorized" UNAUTHORIZED "Credentials are needed"
        "The request carries no credentials, or ones that are not valid (any more). \
         `WWW-Authenticate` says which scheme is expected. Log in, or refresh the access token, and \
         try again.";
    Forbidden "forbidden" FORBIDDEN "Not allowed"
        "The credentials are valid, but do not grant the role or the pool that this request needs. \
         Ask whoever manages the roles.";
    InvalidCredentials "invalid-credentials" UNAUTHORIZED "Wrong user name or password"
        "The login failed. The answer is the same whether the user is unknown or the password is \
         wrong, so that nobody can find out who has an account.";
    InvalidGrant "invalid-grant" UNAUTHORIZED "The refresh token is not valid"
        "The refresh token is unknown, expired or revoked, or its session has a newer one since less than \
         10 s. Use the newest token of the session; without one, log in again.";
    TokenReused "token-reused" UNAUTHORIZED "The refresh token was used before"
        "The refresh token was already exchanged, and its successor was used or the time for retries \
         (`ROTATION_RETRY`, 60 s unless it is set) has passed. Since that can mean a stolen token, the \
         whole session is revoked. Log in again.";
    NotFound "not-found" NOT_FOUND "No such route"
        "This service has nothing at that path. Check the spelling. A slash at the end is ignored for GET, HEAD \
         and OPTIONS alone: `/docs/` is `/docs`, but `POST /tokens/assign/` is no path.";
    NoTokenAvailable "no-token-available" NOT_FOUND "No token is available"
        "Every token of the pool is held or cooling, or the pool is empty. `Retry-After` says in \
         how many seconds the next one can become free; it is a hint, since others wait too, and \
         absent for an empty pool. If it happens often, generate more tokens.";
    TokenNotFound "token-not-found" NOT_FOUND "No such token"
        "The pool has no such token: it never did, it was deleted, or it idled past the pool's \
         `idle_limit`. It will not come back; assign another.";
    PoolNotFound "pool-not-found" NOT_FOUND "No such pool"
        "There is no pool of that name. `GET /v1/pools` lists those that exist; \
         `PUT /v1/pools/{pool}` creates one.";
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "Method not allowed"
        "The path exists, but not with this method; `Allow` lists those it takes. Assigning is a \
         POST and nothing else, so that no crawler, prefetch or cache can take a token.";
    RequestTimeout "request-timeout" REQUEST_TIMEOUT "The request took too long to arrive"
        "The body did not arrive in time. Nothing was done; send it again.";
    NotHeld "not-held" CONFLICT "The token is not held"
        "The token is not in a state that this verb acts on: unblock needs a held one, keep-alive a \
         held or a free one. Usually the lease lapsed before the call came. Assign again, and keep \
         the lease alive more often than its lifetime.";
    NotFree "not-free" CONFLICT "The token is not free"
        "The token asked for by name is held or cooling. `Retry-After` says in how many seconds it \
         can become free at the earliest; a keep-alive by its holder may make it later.";
    LeaseLost "lease-lost" CONFLICT "The lease is lost"
        "The token is not held under the fence that the request names: the lease lapsed, was let \
         go, or the token has a new holder. It also answers a retry with an `Idempotency-Key` whose \
         lease has ended. Stop using the token and assign again.";
    PoolFull "pool-full" CONFLICT "The pool is full"
        "Adding these tokens would pass the pool's `max_tokens`, counted over all states. Nothing \
         was added. The members `max_tokens` and `total` say how much room there is; of a pool with \
         `shards`, each shard has an equal share of it, and a token of yours lies in the shard that \
         its hash says. Delete tokens \
         or raise the limit.";
    PoolFixed "pool-fixed" CONFLICT "The pool is fixed"
        "The environment that the service was started with decides the policy of the pool \
         `default`; it can be neither changed nor deleted over HTTP. Set `TOKEN_LIFETIME`, \
         `KEEP_ALIVE_LIMIT`, `TOKEN_UNBLOCK_LIFETIME` or `MAX_TOKENS` and restart, or use a pool of \
         your own.";
    IdempotencyMismatch "idempotency-mismatch" UNPROCESSABLE_ENTITY "The idempotency key belongs to another request"
        "The `Idempotency-Key` was used in the last minutes for a different request of this verb on \
         this pool. Use a new key for each new request, and the same only for retries.";
    InvalidMetadata "invalid-metadata" UNPROCESSABLE_ENTITY "The metadata is not an object"
        "The member `meta` of a request about one-time tokens is missing where it must be there, or is \
         not a JSON object. Send `{\"meta\": {}}` for a token without any. A caller who wants a unified \
         token, which has no metadata, sends no body, or says with the header `user` whose it is.";
    PayloadTooLarge "payload-too-large" PAYLOAD_TOO_LARGE "The request is too large"
        "The body is over 1 MiB, or metadata over 64 KiB. Nothing was done. Send less, or split it \
         over several calls.";
    UnsupportedMediaType "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "Another content type is needed"
        "The request has a body that does not say it is JSON, or that is compressed. Send it as it \
         is with `Content-Type: application/json`.";
    RateLimited "rate-limited" TOO_MANY_REQUESTS "Too many requests"
        "The caller has used up its requests for now. `Retry-After` and `RateLimit-*` say when \
         there are more.";
    StoreUnavailable "store-unavailable" SERVICE_UNAVAILABLE "The store is unavailable"
        "Redis could not be reached or refused to run the call. Nothing was done, so it is safe to \
         try again after `Retry-After`.";
    OutcomeUnknown "outcome-unknown" SERVICE_UNAVAILABLE "The outcome is unknown"
        "The connection to Redis ended after the call was sent: it may or may not have run. Try \
         again with the same `Idempotency-Key` to find the first call's result; an exchange or a \
         refresh needs no key, but must come within `ROTATION_RETRY` (60 s unless it is set). A grant made \
         without a key that could not be told to anyone is taken back by itself.";
    FlowFull "flow-full" SERVICE_UNAVAILABLE "This kind of token is used up"
        "As many tokens of this kind are alive as the service is set to keep. Some will expire; try \
         again later, or raise the limit in the environment.";
    FlowOff "flow-off" SERVICE_UNAVAILABLE "This kind of token is turned off"
        "These routes need a secret that is not configured. The answer names the environment \
         variable to set.";
    Overloaded "overloaded" SERVICE_UNAVAILABLE "Too much at once"
        "More logins are waiting than this replica can check in time: verifying a password is slow on \
         purpose. Nothing was done and no attempt was counted; try again after `Retry-After`.";
    NotReady "not-ready" SERVICE_UNAVAILABLE "Not ready"
        "This replica cannot serve now: Redis does not answer, its scripts are not loaded, or it is \
         shutting down. The member `checks` says which. Send requests to another replica.";
    Internal "internal" INTERNAL_SERVER_ERROR "Internal error"
        "A bug. The cause is in the service's log under the answer's `request_id`; please report it \
         with that.";
}

impl Slug {
    fn kind(self) -> &'static Kind {
        &KINDS[self as usize]
    }

    /// The kind with that slug.
    #[must_use]
    pub fn find(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == slug)
    }

    /// The last segment of the problem's `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.kind().slug
    }

    /// The status that this kind always has.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.kind().status
    }

    /// A short summary, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.kind().title
    }

    /// When it happens and what to do, for its page.
    #[must_use]
    pub fn page(self) -> &'static str {
        self.kind().page
    }
}
