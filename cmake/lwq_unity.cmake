# The sources of a folder compiled as one, so that what they all include is read once. For who builds
# once (quickstart, images): who changes a file waits longer this way. Names in unnamed namespaces must
# differ within such a folder; tests/lint says where they do not.
option(LWQ_UNITY "Compile the sources of a folder as one, in batches" OFF)
if(NOT LWQ_UNITY)
  return()
endif()

set_target_properties(
  lwq_base lwq_blob lwq_dispatch lwq_format lwq_metrics lwq_plan lwq_records lwq_rpc lwq_runner
  lwq_service lwq_worker PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)

# Of the engine the folders whose files have names of their own. The files of the others are each an
# entry of a registry, with the same few names inside, or kernels.
set_target_properties(lwq_engine PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
foreach(folder artifact eval io model)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/worker/engine/${folder}/*.cc)
  set(count 0)
  foreach(source ${sources})
    math(EXPR batch "${count} / 8")
    math(EXPR count "${count} + 1")
    set_source_files_properties(${source} TARGET_DIRECTORY lwq_engine
                                PROPERTIES UNITY_GROUP ${folder}_${batch})
  endforeach()
endforeach()
