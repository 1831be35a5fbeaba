"""From detections in the network's input to predictions in the original image."""

from hookline.structures import Instances, paste_masks_in_image


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Scale detections from the size that the model saw to the size of the original image.

    Args:
        results: Detections: `pred_boxes` or `proposal_boxes`, and perhaps `pred_masks` (N, 1, S, S) inside the boxes
            and `pred_keypoints` (N, K, 3); in pixels of an image of `results.image_size`. Not changed.
        output_height: Height of the original image in pixels.
        output_width: Width of the original image in pixels.
        mask_threshold: Probability from which a pixel belongs to the object.

    Returns:
        New instances in the original's pixels, without those whose clipped box is empty. `pred_masks` are (N, H, W)
        bool, laid out for a cheap run-length encoding.

    Raises:
        ValueError: If there are no boxes.
    """
    scale_x = output_width / results.image_size[1]
    scale_y = output_height / results.image_size[0]
    scaled = Instances((int(output_height), int(output_width)), **results.get_fields())
    name = next((name for name in ("pred_boxes", "proposal_boxes") if scaled.has(name)), None)
    if name is None:
        raise ValueError(f"detector_postprocess needs pred_boxes or proposal_boxes, got {list(results.get_fields())}.")
    boxes = scaled.get(name).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip(scaled.image_size)
    scaled.set(name, boxes)
    scaled = scaled[boxes.nonempty()]
    if scaled.has("pred_masks"):
        masks = scaled.pred_masks[:, 0]
        scaled.pred_masks = paste_masks_in_image(masks, scaled.get(name).tensor, scaled.image_size, mask_threshold)
    if scaled.has("pred_keypoints"):
        points = scaled.pred_keypoints.clone()
        points[..., 0] *= scale_x
        points[..., 1] *= scale_y
        scaled.pred_keypoints = points
    return scaled
