//! A replica that goes away tells its callers to connect anew.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::middleware::Next;
use actix_web::{Error, web};

use super::system::ShuttingDown;

/// From the signal on, each answer closes its connection. One that is kept alive is moved by no load balancer, and a
/// request that meets the closing of an idle one is lost: so that it is closed with an answer, in the time that
/// `SHUTDOWN_DELAY` gives, and not at its end.
///
/// # Errors
/// Those of the wrapped service.
pub async fn close_when_shutting_down(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let shutting_down = request.app_data::<web::Data<ShuttingDown>>().cloned();
    let mut response = next.call(request).await?;
    // Asked after the answer was made: it may have taken a while.
    if shutting_down.is_some_and(|it| it.has_begun()) {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}
