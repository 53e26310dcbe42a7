//! Envelope (API key 58).

use bytes::Bytes;

message! {
    /// The body of the Envelope request.
    struct EnvelopeRequest versions [0] flexible [0+] {
        request_data: Bytes, "RequestData" [0+];
        request_principal: Option<Bytes> = Some(Bytes::new()), "RequestPrincipal" [0+] nullable [0+];
        client_host_address: Bytes, "ClientHostAddress" [0+];
    }

    /// The body of the Envelope response.
    struct EnvelopeResponse versions [0] flexible [0+] {
        response_data: Option<Bytes>, "ResponseData" [0+] nullable [0+];
        error_code: i16, "ErrorCode" [0+];
    }
}
