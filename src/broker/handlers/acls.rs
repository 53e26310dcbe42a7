//! DescribeAcls: v1-v3.
//! CreateAcls: v1-v3.
//! DeleteAcls: v1-v3.
//!
//! Behaviour: that of Apache Kafka without an authorizer: everything is allowed, and there is
//! nothing to describe or change. Errors: always SECURITY_DISABLED.

use crate::error::ErrorCode;
use crate::protocol::Str;
use crate::protocol::messages::create_acls::{
    AclCreationResult, CreateAclsRequest, CreateAclsResponse,
};
use crate::protocol::messages::delete_acls::{
    DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse,
};
use crate::protocol::messages::describe_acls::DescribeAclsResponse;

const DISABLED: i16 = ErrorCode::SecurityDisabled.to_i16();
const MESSAGE: Str = Str::from_static("No Authorizer is configured.");

pub(in crate::broker) fn describe() -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: DISABLED,
        error_message: Some(MESSAGE),
        ..DescribeAclsResponse::default()
    }
}

pub(in crate::broker) fn create(request: &CreateAclsRequest) -> CreateAclsResponse {
    let refused = |_| AclCreationResult { error_code: DISABLED, error_message: Some(MESSAGE) };
    let results = request.creations.iter().map(refused).collect();
    CreateAclsResponse { results, ..CreateAclsResponse::default() }
}

pub(in crate::broker) fn delete(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = |_| DeleteAclsFilterResult {
        error_code: DISABLED,
        error_message: Some(MESSAGE),
        ..DeleteAclsFilterResult::default()
    };
    let filter_results = request.filters.iter().map(refused).collect();
    DeleteAclsResponse { filter_results, ..DeleteAclsResponse::default() }
}
