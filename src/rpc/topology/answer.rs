//! What the layer answers, as messages.

use crate::{
    Error, Result,
    model::{mesh::Page, topology::Edit},
    proto::v1,
};

macro_rules! pages {
    ($($response:ident: $items:ident of $item:ident;)*) => {
        $(
            impl From<(v1::ReadHeader, Page<v1::$item>)> for v1::$response {
                fn from((header, page): (v1::ReadHeader, Page<v1::$item>)) -> Self {
                    Self { header: Some(header), $items: page.items, next_cursor: page.next_cursor }
                }
            }
        )*
    };
}

pages! {
    ListMeshesResponse: meshes of MeshInfo;
    ListNodesResponse: nodes of NodeInfo;
    ListRegionsResponse: regions of RegionInfo;
    HistoryResponse: entries of HistoryEntry;
}

impl From<(v1::ReadHeader, (v1::MeshInfo, Option<v1::PendingChange>))> for v1::ShowMeshResponse {
    fn from((header, (mesh, pending)): (v1::ReadHeader, (v1::MeshInfo, Option<v1::PendingChange>))) -> Self {
        Self { header: Some(header), mesh: Some(mesh), pending }
    }
}

impl From<(v1::ReadHeader, v1::NodeInfo)> for v1::ShowNodeResponse {
    fn from((header, node): (v1::ReadHeader, v1::NodeInfo)) -> Self {
        Self { header: Some(header), node: Some(node) }
    }
}

impl From<(v1::ReadHeader, Vec<v1::RouteInfo>)> for v1::GetRoutesForNodeResponse {
    fn from((header, routes): (v1::ReadHeader, Vec<v1::RouteInfo>)) -> Self {
        Self { header: Some(header), routes }
    }
}

impl From<(v1::ReadHeader, Vec<Edit>)> for v1::DiffResponse {
    fn from((header, edits): (v1::ReadHeader, Vec<Edit>)) -> Self {
        Self { header: Some(header), edits: edits.into_iter().map(Into::into).collect() }
    }
}

impl From<(v1::ReadHeader, (u64, Option<String>))> for v1::GetLocalIdentityResponse {
    fn from((header, (storage_node_id, identity)): (v1::ReadHeader, (u64, Option<String>))) -> Self {
        Self { header: Some(header), storage_node_id, identity_id: identity.unwrap_or_default() }
    }
}

/// A page whose items are made for the wire.
pub(super) fn for_wire<T, U: TryFrom<T, Error = impl Into<Error>>>(page: Page<T>) -> Result<Page<U>> {
    let Page { items, next_cursor, revision } = page;
    let items = items.into_iter().map(|item| item.try_into().map_err(Into::into)).collect::<Result<_>>()?;
    Ok(Page { items, next_cursor, revision })
}
