"""Everything that turns files into batches: layout, annotations, video, transforms, clips."""
