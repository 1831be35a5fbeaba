"""Proposal generators: where in an image objects may be."""

from hookline.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals, find_top_rpn_proposals
from hookline.modeling.proposal_generator.rpn import RPN
from hookline.modeling.proposal_generator.rpn_head import StandardRPNHead

__all__ = ["RPN", "StandardRPNHead", "add_ground_truth_to_proposals", "find_top_rpn_proposals"]
