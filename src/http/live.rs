//! Which bearer tokens are good at this moment. The store is asked each time: a replica that remembered an answer
//! would go on honouring what another has revoked.
//!
//! A token's form tells its kind, since each flow makes its own: five parts with dots between are a rotating
//! token (whose key tells the flow), three a signed one, a colon is in temporary ones alone.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{Error, FromRequest, HttpRequest, web};

use super::foreign::Revocations;
use crate::auth::jwt::Claims;
use crate::auth::session::{Login, SessionId};
use crate::flows::{Flows, Sessions};
use crate::store::Store;
use crate::token::bearer::BEARER_BYTES_MAX;
use crate::token::rotating::{Keys, Rotating, named_key};
use crate::token::{BearerView, Flow, Holder, Kind, StoreError};

/// A token that is good.
pub struct Live {
    pub kind: Kind,
    /// Of an access token: its session.
    pub view: BearerView,
    /// Who it was made for.
    pub subject: Option<String>,
    /// Of an access token alone.
    pub claims: Option<Claims>,
}

/// What a token says by itself, before the store is asked.
enum Said {
    Opaque(Kind, Flow),
    OneTime(Rotating),
    Refresh(Rotating),
    Access(Claims),
}

impl Said {
    fn kind(&self) -> Kind {
        match self {
            Self::Opaque(kind, _) => *kind,
            Self::OneTime(_) => Kind::OneTime,
            Self::Refresh(_) => Kind::Refresh,
            Self::Access(_) => Kind::Access,
        }
    }
}

/// The store and the keys that tokens are checked with.
pub struct Tokens {
    store: web::Data<Store>,
    flows: web::Data<Flows>,
}

impl FromRequest for Tokens {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let store = web::Data::from_request(request, payload).into_inner();
        let flows = web::Data::from_request(request, payload).into_inner();
        ready(store.and_then(|store| flows.map(|flows| Self { store, flows })))
    }
}

impl Tokens {
    /// The token, if it is good, and of a kind that `INTROSPECT_KINDS` or the caller's hint names. Resource servers
    /// look at `active` alone: a token of another kind must not pass for an access token.
    ///
    /// # Errors
    /// The store's.
    pub async fn introspect(
        &self,
        token: &str,
        hint: Option<Kind>,
    ) -> Result<Option<Live>, StoreError> {
        let Some(said) = self.said(token) else {
            return Ok(None);
        };
        let kind = said.kind();
        if hint != Some(kind) && !self.flows.settings.introspect_kinds.contains(&kind) {
            return Ok(None);
        }
        self.find(said, token).await
    }

    async fn find(&self, said: Said, token: &str) -> Result<Option<Live>, StoreError> {
        match said {
            Said::Opaque(kind, flow) => {
                let view = self.store.inspect_opaque(flow, token).await?;
                Ok(view.map(|view| Live::of(kind, view)))
            }
            Said::OneTime(said) => {
                let at = (said.partition, &said.family);
                let view = self.store.inspect_family(Flow::OneTime, at.0, at.1).await?;
                let current = view.filter(|view| view.number == said.number);
                Ok(current.map(|view| Live::of(Kind::OneTime, view)))
            }
            Said::Refresh(said) => {
                let session = find_session(&self.store, &SessionId::from(&said)).await?;
                let current = session.filter(|(view, _)| view.number == said.number);
                Ok(current.map(|(view, login)| Live {
                    subject: Some(login.name.to_string()),
                    ..Live::of(Kind::Refresh, view)
                }))
            }
            Said::Access(claims) => self.find_said(claims).await,
        }
    }

    /// What an access token says, if it is one and good.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_access(&self, token: &str) -> Result<Option<Claims>, StoreError> {
        match self.said(token) {
            Some(Said::Access(claims)) => {
                let live = self.find_said(claims).await?;
                Ok(live.and_then(|live| live.claims))
            }
            _ => Ok(None),
        }
    }

    async fn find_said(&self, claims: Claims) -> Result<Option<Live>, StoreError> {
        let Some(id) = SessionId::parse(&claims.sid) else {
            return Ok(None);
        };
        let Some((view, login)) = find_session(&self.store, &id).await? else {
            return Ok(None);
        };
        // Redis's clock is the only one: a replica whose own is wrong decides nothing.
        let good = claims.is_current(view.now_ms) && claims.sub == login.name.as_str();
        Ok(good.then(|| Live {
            subject: Some(claims.sub.clone()),
            claims: Some(claims),
            ..Live::of(Kind::Access, view)
        }))
    }

    /// Ends a token, and with one of a family the family: any number that was ever signed will do, but only an
    /// access token that is still good. Says whether there was something to end.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke(&self, token: &str, done: &Revocations) -> Result<bool, StoreError> {
        match self.said(token) {
            None => {
                self.note_foreign(token, done);
                Ok(false)
            }
            Some(Said::Opaque(_, flow)) => self.store.delete_opaque(flow, token).await,
            Some(Said::OneTime(said)) => {
                let (partition, family) = (said.partition, &said.family);
                self.store
                    .delete_family(Flow::OneTime, partition, family)
                    .await
            }
            Some(said) => self.revoke_said(said).await,
        }
    }

    /// As `revoke`, for the tokens of sessions alone.
    ///
    /// # Errors
    /// The store's.
    pub async fn revoke_session(
        &self,
        token: &str,
        done: &Revocations,
    ) -> Result<bool, StoreError> {
        match self.said(token) {
            Some(said @ (Said::Refresh(_) | Said::Access(_))) => self.revoke_said(said).await,
            None => {
                self.note_foreign(token, done);
                Ok(false)
            }
            Some(Said::Opaque(..) | Said::OneTime(_)) => Ok(false),
        }
    }

    /// Tells of a token that has the form of ours and that no key here has signed, or of an access token for others.
    fn note_foreign(&self, token: &str, done: &Revocations) {
        let sessions = self.flows.sessions.as_ref().ok();
        let why = match token.bytes().filter(|b| *b == b'.').count() {
            4 => {
                let keys = [
                    self.flows.one_time.as_ref().ok(),
                    sessions.map(|it| &it.refresh),
                ];
                unknown_key(token, keys.into_iter().flatten())
            }
            2 => sessions.and_then(|it| it.jwt.why_foreign(token)),
            _ => None,
        };
        if let Some(why) = why {
            done.did_nothing(&why);
        }
    }

    async fn revoke_said(&self, said: Said) -> Result<bool, StoreError> {
        let id = match said {
            Said::Refresh(said) => Some(SessionId::from(&said)),
            Said::Access(claims) => {
                let id = SessionId::parse(&claims.sid);
                let good = self.find_said(claims).await?.is_some();
                id.filter(|_| good)
            }
            Said::Opaque(..) | Said::OneTime(_) => None,
        };
        let Some(SessionId { partition, family }) = id else {
            return Ok(false);
        };
        self.store
            .delete_family(Flow::Session, partition, &family)
            .await
    }

    /// A flow that is off has no keys, and so nothing that could be good.
    fn said(&self, token: &str) -> Option<Said> {
        let dots = token.bytes().filter(|b| *b == b'.').count();
        let sessions = self.flows.sessions.as_ref().ok();
        // A signed one may be longer; its own check knows by how much.
        if dots != 2 && token.len() > BEARER_BYTES_MAX {
            return None;
        }
        match dots {
            4 => {
                let one_time = self.flows.one_time.as_ref().ok();
                let one_time = one_time.and_then(|keys| keys.verify(token));
                let refresh = || Some(Said::Refresh(sessions?.refresh.verify(token)?));
                one_time.map(Said::OneTime).or_else(refresh)
            }
            2 => Some(Said::Access(sessions?.jwt.verify(token)?)),
            _ if token.contains(':') => Some(Said::Opaque(Kind::Temporary, Flow::Temporary)),
            _ => Some(Said::Opaque(Kind::Unified, Flow::Unified)),
        }
    }
}

/// Why none of these keys verifies what has the form of a rotating token, in words for the log.
#[must_use]
pub fn unknown_key<'a>(token: &str, mut keys: impl Iterator<Item = &'a Keys>) -> Option<String> {
    let id = named_key(token)?;
    let known = keys.any(|keys| keys.has(id));
    (!known).then(|| format!("it is signed with key {id}, which is unknown here"))
}

impl Live {
    fn of(kind: Kind, view: BearerView) -> Self {
        Self {
            kind,
            subject: view.subject.as_ref().map(ToString::to_string),
            view,
            claims: None,
        }
    }
}

/// A session that has neither ended nor been revoked, and whose user still has the password of its login.
///
/// # Errors
/// The store's.
pub async fn find_session(
    store: &Store,
    id: &SessionId,
) -> Result<Option<(BearerView, Login)>, StoreError> {
    let family = store.inspect_family(Flow::Session, id.partition, &id.family);
    let Some(view) = family.await? else {
        return Ok(None);
    };
    let login = current_login(store, view.subject.as_ref()).await?;
    Ok(login.map(|login| (view, login)))
}

/// The login that a session's label tells, if its user is still there with the password of then.
///
/// # Errors
/// The store's.
pub async fn current_login(
    store: &Store,
    label: Option<&Holder>,
) -> Result<Option<Login>, StoreError> {
    let Some(login) = label.and_then(Login::parse) else {
        return Ok(None);
    };
    let user = Box::pin(store.find_user(&login.name)).await?;
    Ok(login.is_of(user.as_ref()).then_some(login))
}

/// The refresh token that a session's key signed, if the text is one.
#[must_use]
pub fn refresh_token(sessions: &Sessions, token: &str) -> Option<Rotating> {
    (token.len() <= BEARER_BYTES_MAX)
        .then(|| sessions.refresh.verify(token))
        .flatten()
}
