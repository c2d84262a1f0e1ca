//! Query parameters and their names.

/// A query parameter of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Page,
    Limit,
    Status,
    ExecutionSource,
    ExecutionType,
    StartDate,
    EndDate,
    Slug,
    WorkflowId,
    WorkflowName,
    ExecutionId,
    SortAsc,
}

impl Parameter {
    /// The parameters of `GET /api/v2/public/execution`.
    pub(super) const OF_LISTS: &[Self] = &[
        Self::Page,
        Self::Limit,
        Self::Status,
        Self::ExecutionSource,
        Self::ExecutionType,
        Self::StartDate,
        Self::EndDate,
        Self::Slug,
        Self::WorkflowId,
        Self::WorkflowName,
        Self::ExecutionId,
        Self::SortAsc,
    ];
    /// The parameters of the batches of an execution's node.
    pub(super) const OF_BATCHES: &[Self] = &[Self::Page, Self::Limit, Self::Status];

    /// Finds a parameter by its name. Part of the hit path.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "page" => Self::Page,
            "limit" => Self::Limit,
            "status" => Self::Status,
            "execution_source" => Self::ExecutionSource,
            "execution_type" => Self::ExecutionType,
            "start_date" => Self::StartDate,
            "end_date" => Self::EndDate,
            "slug" => Self::Slug,
            "workflow_id" => Self::WorkflowId,
            "workflow_name" => Self::WorkflowName,
            "execution_id" => Self::ExecutionId,
            "sortAsc" => Self::SortAsc,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Limit => "limit",
            Self::Status => "status",
            Self::ExecutionSource => "execution_source",
            Self::ExecutionType => "execution_type",
            Self::StartDate => "start_date",
            Self::EndDate => "end_date",
            Self::Slug => "slug",
            Self::WorkflowId => "workflow_id",
            Self::WorkflowName => "workflow_name",
            Self::ExecutionId => "execution_id",
            Self::SortAsc => "sortAsc",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_found_by_its_name() {
        for parameter in Parameter::OF_LISTS {
            assert_eq!(Parameter::of_name(parameter.name()), Some(*parameter));
        }
    }
}
