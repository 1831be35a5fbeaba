"""The nouns: boxes, instances, masks, keypoints, image lists."""
