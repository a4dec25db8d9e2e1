# lwq_proto_library(NAME lwq_proto PROTOS a.proto ... [GRPC b.proto ...]): generated C++ under
# build/proto/..., included as "proto/lwq/v1/x.pb.h".
function(lwq_proto_library)
  cmake_parse_arguments(A "" "NAME" "PROTOS;GRPC" ${ARGN})
  set(sources)
  foreach(proto ${A_PROTOS} ${A_GRPC})
    file(RELATIVE_PATH rel ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/${proto})
    string(REGEX REPLACE "\\.proto$" "" stem ${rel})
    set(outputs ${CMAKE_BINARY_DIR}/${stem}.pb.cc ${CMAKE_BINARY_DIR}/${stem}.pb.h)
    set(grpc_args)
    if(proto IN_LIST A_GRPC)
      list(APPEND outputs ${CMAKE_BINARY_DIR}/${stem}.grpc.pb.cc
                          ${CMAKE_BINARY_DIR}/${stem}.grpc.pb.h)
      set(grpc_args --grpc_out=${CMAKE_BINARY_DIR}
                    --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>)
    endif()
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND protobuf::protoc -I ${CMAKE_SOURCE_DIR} --cpp_out=${CMAKE_BINARY_DIR} ${grpc_args}
              ${rel}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${proto}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      VERBATIM)
    list(APPEND sources ${outputs})
  endforeach()
  add_library(${A_NAME} STATIC ${sources})
  target_include_directories(${A_NAME} PUBLIC ${CMAKE_BINARY_DIR})
  target_link_libraries(${A_NAME} PUBLIC protobuf::libprotobuf gRPC::grpc++)
  if(LWQ_SANITIZE)
    target_compile_options(${A_NAME} PRIVATE ${LWQ_SANITIZE_OPTIONS})
  endif()
endfunction()
